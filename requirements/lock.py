"""Write the lock files and print what changed: `make lock`, or `python requirements/lock.py serve-cpu` for one of them.

serve-*.lock and tools.lock have every version with the hashes of all its files. They are resolved for CPython 3.11, the
oldest that is supported, on Linux x86_64; what later versions need is a part of it. dev.lock has versions alone, and
none of PyTorch and of the packages that its build chooses: that build differs by machine.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
PROJECT: Final = FOLDER.parent
PYTHON: Final = (3, 11)
SERVE: Final = {
    "serve-cpu": ("cpu", "client"),
    "serve-gpu": ("gpu", "client"),
    "serve-ray": ("gpu", "ray", "client"),
}
DEV: Final = ("test", "bench")
CHOSEN_BY_TORCH: Final = re.compile(r"(torch|triton|cuda-\w+|nvidia-[\w-]+)==")
NAMES: Final = (*SERVE, "tools", "dev")
# No host of a package index may get into a lock file: whoever installs uses the index of their own pip.
OPTIONS: Final = (
    "--quiet",
    "--upgrade",
    "--strip-extras",
    "--allow-unsafe",
    "--no-emit-index-url",
    "--no-emit-trusted-host",
    "--no-emit-find-links",
    "--no-emit-options",
    "--resolver=backtracking",
)
_PINNED: Final = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;\\]+)", re.MULTILINE)


def pinned(path: Path) -> dict[str, str]:
    """The version of each package in a lock file; empty if there is no such file."""
    return dict(_PINNED.findall(path.read_text())) if path.exists() else {}


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each package that was added, removed or changed."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            lines.append(f"  {name} {old or '(new)'} -> {new or '(removed)'}")
    return lines


def write(name: str) -> None:
    """Resolve one lock file anew. Raises subprocess.CalledProcessError with pip's message already on stderr."""
    path = FOLDER / f"{name}.lock"
    if name in SERVE:
        # setuptools, hashed, too: it builds this project where the lock file is installed.
        _compile(path, "--generate-hashes", "--all-build-deps", *_extras(SERVE[name]), "pyproject.toml")
    elif name == "tools":
        _compile(path, "--generate-hashes", "requirements/tools.in")
    else:
        _compile(path, "--annotation-style=line", *_extras(DEV), "pyproject.toml")
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not (CHOSEN_BY_TORCH.match(line) or line.startswith("alignseg-serve @ "))]
        path.write_text("".join(kept))


def _extras(names: tuple[str, ...]) -> list[str]:
    return [f"--extra={name}" for name in names]


def _compile(path: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, f"--output-file={path}", *arguments]
    environment = {**os.environ, "CUSTOM_COMPILE_COMMAND": "make lock"}
    subprocess.run(command, cwd=PROJECT, env=environment, check=True)


def main(names: list[str]) -> None:
    """Write the named lock files, or all of them."""
    if sys.version_info[:2] != PYTHON or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit("Lock files are resolved with CPython 3.11 on Linux x86_64: make lock PYTHON=python3.11")
    if unknown := set(names) - set(NAMES):
        sys.exit(f"Unknown lock file {', '.join(sorted(unknown))}. Expected some of: {', '.join(NAMES)}.")
    for name in names or NAMES:
        before = pinned(FOLDER / f"{name}.lock")
        write(name)
        lines = changes(before, pinned(FOLDER / f"{name}.lock"))
        print(f"{name}.lock:", *(lines or ["unchanged"]), sep="\n" if lines else " ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
