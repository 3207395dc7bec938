"""Network -> one portable ONNX, compared with PyTorch."""
