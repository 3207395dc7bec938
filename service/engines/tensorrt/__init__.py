"""TensorRT engines: one plan a bucket, two lanes, CUDA graphs."""
