"""What this processor computes quickly, as far as the choice of a precision depends on it.

OpenVINO says whether there is bfloat16, but not whether there is VNNI, the instructions that multiply bytes and add in
32 bits; the kernel lists both. oneDNN, which computes OpenVINO's convolutions, reads a limit from ONEDNN_MAX_CPU_ISA
(https://oneapi-src.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html) and then uses no newer instructions.
OpenVINO ignores the limit in what it reports, so it is applied here: with it, a new processor stands for an old one.
"""

import os
import platform
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Final, NamedTuple

_CPUINFO: Final = Path("/proc/cpuinfo")
_LIMITS: Final = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the first one that is set counts, as in oneDNN
_WITH_BFLOAT16: Final = ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")  # parts of the names of limits


class Features(NamedTuple):
    """bfloat16: AVX512_BF16 or AMX. vnni: AVX-512 VNNI or AVX-VNNI. avx2: AVX2, which x86-64 has had since 2015."""

    bfloat16: bool
    vnni: bool
    avx2: bool


def features(core: Any) -> Features:
    """Of this processor, within oneDNN's limit. core: openvino.Core."""
    limit = next((os.environ[name].upper() for name in _LIMITS if os.environ.get(name)), "ALL")
    return within_limit(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), _flags(), limit)


def within_limit(capabilities: Sequence[str], flags: Set[str], limit: str = "ALL") -> Features:
    """What oneDNN uses of OpenVINO's capabilities and the kernel's flags under a limit, such as AVX2_VNNI."""
    avx2 = "avx2" in flags
    if any(part in limit for part in _WITH_BFLOAT16):
        return Features("BF16" in capabilities, bool(flags & {"avx512_vnni", "avx_vnni"}), avx2)
    vnni = "VNNI" in limit and ("avx_vnni" if limit.startswith("AVX2") else "avx512_vnni") in flags
    return Features(False, vnni, avx2 and limit.startswith(("AVX2", "AVX512")))


def _flags(cpuinfo: Path = _CPUINFO) -> set[str]:
    """The x86 instruction sets that the kernel lists; empty on other processors and systems."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return set()
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
