"""What the GPU does: python -m benchmarks.gpu measures the kernel, and whole networks by each runtime."""
