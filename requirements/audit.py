"""Compare the lock files with the known vulnerabilities: `make audit`.

Exit status: 0 none is known, 1 some are, 3 the database could not be reached, so that nothing is known.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
VULNERABLE, UNREACHABLE = 1, 3
# dev.lock has no PyTorch; its version is in pyproject.toml.
OPTIONS: Final = ("--disable-pip", "--no-deps", "--progress-spinner=off", "--timeout=30", "--format=json")


def report(lock: Path) -> list[dict[str, Any]] | None:
    """pip-audit's entry for each package of a lock file; None if its database could not be reached."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "audit.json")
        command = [sys.executable, "-m", "pip_audit", *OPTIONS, f"--output={output}", f"--requirement={lock}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        entries = json.loads(output.read_text())["dependencies"] if output.exists() else []
    # An index without the database answers 404 to each package, which pip-audit counts as "skipped" and exits with 0.
    if not any("vulns" in entry for entry in entries):
        reasons = [str(entry.get("skip_reason")) for entry in entries] or result.stderr.strip().splitlines()
        print(f"{lock.name}: {reasons[-1] if reasons else 'no response'}", file=sys.stderr)
        return None
    return list(entries)


def describe(lock: Path, entries: list[dict[str, Any]]) -> list[str]:
    """One line for each vulnerability, and for each package that could not be compared."""
    lines = []
    for entry in entries:
        if "vulns" not in entry:
            lines.append(f"{lock.name}: {entry['name']} was not compared: {entry.get('skip_reason')}")
        for vulnerability in entry.get("vulns", ()):
            names = ", ".join([vulnerability["id"], *vulnerability.get("aliases", ())])
            fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
            lines.append(f"{lock.name}: {entry['name']} {entry['version']}: {names}; fixed in {fixed}")
    return lines


def main() -> int:
    """Audit every lock file; the exit status."""
    status = 0
    for lock in sorted(FOLDER.glob("*.lock")):
        entries = report(lock)
        if entries is None:
            print(
                "The database of vulnerabilities could not be reached: nothing was audited. "
                "Repeat with access to it, or in CI (.github/workflows/audit.yml).",
                file=sys.stderr,
            )
            return UNREACHABLE
        for line in describe(lock, entries):
            print(line)
        vulnerable = sum(bool(entry.get("vulns")) for entry in entries)
        print(f"{lock.name}: {len(entries)} packages, {vulnerable} with known vulnerabilities")
        status = VULNERABLE if vulnerable else status
    return status


if __name__ == "__main__":
    sys.exit(main())
