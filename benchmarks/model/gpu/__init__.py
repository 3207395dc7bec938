"""What the GPU does: python -m benchmarks.model.gpu measures the kernel, and whole networks by each runtime."""
