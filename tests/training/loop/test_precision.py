"""bfloat16 is chosen where training in it is quicker, and the choice is said."""

import pytest

from training.loop.precision import choose


@pytest.mark.parametrize(
    ("amp", "device", "backbone", "flags", "bf16"),
    [
        ("auto", "cuda", "lite", "", True),
        ("auto", "cpu", "lite", "avx2 avx512f", False),
        ("auto", "cpu", "lite", "avx512f avx512_bf16", True),
        ("auto", "cpu", "efficientnet-lite0", "avx512f avx512_bf16", False),
        ("auto", "cpu", "efficientnet-lite0", "avx512_bf16 amx_tile amx_bf16", True),
        ("bf16", "cpu", "lite", "sse2", True),
        ("none", "cuda", "lite", "", False),
    ],
)
def test_choice(amp, device, backbone, flags, bf16, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"model name : a processor\nflags : fpu {flags}\n")
    chosen, line = choose(amp, device, backbone, tmp_path / "cpuinfo")
    assert chosen == bf16
    assert ("bfloat16" if bf16 else "float32") in line
    assert ("quicker" in line) == (amp == "auto")


def test_no_cpuinfo(tmp_path):
    assert choose("auto", "cpu", "lite", tmp_path / "none")[0] is False
