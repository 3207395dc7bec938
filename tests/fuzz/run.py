"""Fuzz a target, guided by coverage: python -m tests.fuzz.run TARGET [options of libFuzzer, as -max_total_time=60].

Inputs that reach new code go to runs/fuzz/TARGET, an input that fails to runs/fuzz/TARGET-crash-...: move that one to
tests/fuzz/corpus/TARGET together with the fix.
"""

import sys
from pathlib import Path
from typing import Final

import atheris

OUTPUT: Final = Path(__file__).parents[2] / "runs" / "fuzz"

with atheris.instrument_imports(include=["service.http", "service.imaging", "PIL", "python_multipart", "starlette"]):
    from tests.fuzz.targets import CORPUS, TARGETS


def main(target: str, options: list[str]) -> None:
    """Does not return: libFuzzer exits with 0 when its time is over, and with another status for a failing input."""
    new_inputs = OUTPUT / target
    new_inputs.mkdir(parents=True, exist_ok=True)
    limits = ["-max_len=65536", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={OUTPUT}/{target}-"]
    atheris.Setup([sys.argv[0], *limits, *options, str(new_inputs), str(CORPUS / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"Expected a target: {', '.join(TARGETS)}. For example: python -m tests.fuzz.run image")
    main(sys.argv[1], sys.argv[2:])
