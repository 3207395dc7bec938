"""The fused GPU kernel of AlignFA and AlignCM: Triton source, PTX and the TensorRT plugin. See README.md."""
