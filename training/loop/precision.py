"""In which precision a run computes convolutions, where that is left to the device."""

from __future__ import annotations

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def bf16_pays(device: str, cpu_info: Path = CPU_INFO) -> bool:
    """Whether training in bfloat16 is quicker than in float32: on CUDA, and on processors with AMX.

    AVX-512's bfloat16 is not enough: an EPYC with avx512_bf16 took 1.9 s for a step of EfficientNet-Lite0 at 257x321 in
    bfloat16 and 1.6 s in float32, since the gradients of depthwise convolutions are slow.
    """
    if device == "cuda":
        return True
    return cpu_info.is_file() and "amx_bf16" in cpu_info.read_text().split()


def choose(amp: str, device: str, cpu_info: Path = CPU_INFO) -> tuple[bool, str]:
    """Whether to use bfloat16, and a line that says so. amp: "bf16", "none", or "auto" for what is quicker."""
    bf16 = bf16_pays(device, cpu_info) if amp == "auto" else amp == "bf16"
    reason = f", the quicker on this {device}" if amp == "auto" else ""
    return bf16, f"convolutions in {'bfloat16' if bf16 else 'float32'}{reason}"
