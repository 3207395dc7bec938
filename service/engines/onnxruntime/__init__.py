"""ONNX Runtime on the CPU, which runs everywhere, and on NVIDIA GPUs. Only this package imports onnxruntime."""
