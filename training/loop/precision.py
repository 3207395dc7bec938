"""In which precision a run computes convolutions, where that is left to the device."""

from __future__ import annotations

from pathlib import Path

from model_export.alignseg.efficientnet_lite import NAMES as EFFICIENTNETS

CPU_INFO = Path("/proc/cpuinfo")


def bf16_pays(device: str, backbone: str, cpu_info: Path = CPU_INFO) -> bool:
    """Whether training in bfloat16 is quicker than in float32: on CUDA, and on processors with AMX or AVX512_BF16.

    An EPYC with AVX512_BF16 took 1.3 to 2.2 s for a step of the backbone lite in bfloat16 and 2.5 to 3.6 s in float32.
    For an EfficientNet it needs AMX: there a step took 1.9 s in bfloat16 and 1.6 s in float32, since the gradients of
    depthwise convolutions are slow. A processor with neither took four times as long in bfloat16.
    """
    if device == "cuda":
        return True
    flags = set(cpu_info.read_text().split()) if cpu_info.is_file() else set()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and backbone not in EFFICIENTNETS)


def choose(amp: str, device: str, backbone: str, cpu_info: Path = CPU_INFO) -> tuple[bool, str]:
    """Whether to use bfloat16, and a line that says so. amp: "bf16", "none", or "auto" for what is quicker."""
    bf16 = bf16_pays(device, backbone, cpu_info) if amp == "auto" else amp == "bf16"
    reason = f", the quicker on this {device}" if amp == "auto" else ""
    return bf16, f"convolutions in {'bfloat16' if bf16 else 'float32'}{reason}"
