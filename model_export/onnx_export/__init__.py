"""The network -> one portable ONNX file, compared with PyTorch before it is written."""
