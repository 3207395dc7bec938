"""The checkpoint road: checkpoint -> network -> ONNX -> engine, handed on as a folder weights/<model>/."""
