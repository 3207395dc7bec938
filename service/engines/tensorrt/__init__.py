"""TensorRT engines on NVIDIA GPUs: one plan for all buckets, two lanes a GPU, CUDA graphs."""
