"""The ONNX file -> a TensorRT engine. Nothing here imports PyTorch, except to export a checkpoint."""
