"""The fused GPU kernels of AlignSeg, their PyTorch operators and their TensorRT registration; see README.md."""
