"""ONNX to TensorRT engine."""
