"""What a processor computes quickly, from the kernel's flags and oneDNN's limit."""

from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[cpu]'")
import openvino

from service.engines.openvino import processor
from service.engines.openvino.processor import Features, within_limit

ZEN4 = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}
ICE_LAKE = {"avx2", "avx512f", "avx512_vnni"}
ALDER_LAKE = {"avx2", "avx_vnni"}
BF16 = ["BF16", "FP32", "INT8"]


@pytest.mark.parametrize(
    ("capabilities", "flags", "expected"),
    [
        (BF16, ZEN4, Features(bfloat16=True, vnni=True, avx2=True)),
        (["FP32", "INT8"], ICE_LAKE, Features(bfloat16=False, vnni=True, avx2=True)),
        (["FP32", "INT8"], ALDER_LAKE, Features(bfloat16=False, vnni=True, avx2=True)),
        (["FP32", "INT8"], {"avx2"}, Features(bfloat16=False, vnni=False, avx2=True)),
        (["FP32", "INT8"], {"avx"}, Features(bfloat16=False, vnni=False, avx2=False)),
        (["FP32"], set(), Features(bfloat16=False, vnni=False, avx2=False)),  # ARM
    ],
)
def test_features(capabilities: list[str], flags: set[str], expected: Features) -> None:
    assert within_limit(capabilities, flags) == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("AVX512_CORE_BF16", Features(bfloat16=True, vnni=True, avx2=True)),
        ("AVX512_CORE_VNNI", Features(bfloat16=False, vnni=True, avx2=True)),
        ("AVX512_CORE", Features(bfloat16=False, vnni=False, avx2=True)),
        ("AVX2_VNNI", Features(bfloat16=False, vnni=False, avx2=True)),  # Zen 4 has no AVX-VNNI
        ("AVX2", Features(bfloat16=False, vnni=False, avx2=True)),
        ("SSE41", Features(bfloat16=False, vnni=False, avx2=False)),
    ],
)
def test_a_limit_makes_an_older_processor(limit: str, expected: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    assert within_limit(BF16, ZEN4, limit) == expected
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit.lower())
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "SSE41")
    features = processor.features(openvino.Core())
    assert features <= expected  # of this processor, which may have less
    assert features.bfloat16 <= expected.bfloat16
    assert features.vnni <= expected.vnni


def test_flags_are_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nvmx flags\t: other\nflags\t\t: fpu avx2 avx_vnni\n\nflags : later\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert processor._flags(cpuinfo) == {"fpu", "avx2", "avx_vnni"}
    assert processor._flags(tmp_path / "none") == set()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor._flags(cpuinfo) == set()
