"""What `make audit` prints, and its exit status, for what pip-audit writes. The entries are those of pip-audit 2.10."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from requirements import audit

CLEAN: Final = {"name": "orjson", "version": "3.13.0", "vulns": []}
VULNERABLE: Final = {
    "name": "pillow",
    "version": "12.3.0",
    "vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-112403"], "fix_versions": ["13.0.0"], "description": ""}],
}
SKIPPED: Final = {"name": "orjson", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.fixture
def pip_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Replaces pip-audit: it writes these entries, or nothing but an error."""
    (tmp_path / "serve-cpu.lock").write_text("orjson==3.13.0\n")
    monkeypatch.setattr(audit, "FOLDER", tmp_path)

    def replace(entries: list[dict[str, Any]] | None) -> None:
        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            (output,) = [part.removeprefix("--output=") for part in command if part.startswith("--output=")]
            if entries is not None:
                Path(output).write_text(json.dumps({"dependencies": entries, "fixes": []}))
            return subprocess.CompletedProcess(command, 0, "", "Failed to resolve the host\n")

        monkeypatch.setattr(audit.subprocess, "run", run)

    return replace


@pytest.mark.parametrize(
    ("entries", "status", "text"),
    [
        ([CLEAN], 0, "serve-cpu.lock: 1 packages, 0 with known vulnerabilities"),
        ([CLEAN, VULNERABLE], 1, "pillow 12.3.0: PYSEC-2026-1, CVE-2026-112403; fixed in 13.0.0"),
        ([CLEAN, SKIPPED], 0, "orjson was not compared: Dependency not found"),
        ([SKIPPED], 3, "could not be reached: nothing was audited"),
        (None, 3, "Failed to resolve the host"),
    ],
)
def test_status_and_text(
    pip_audit: Any,
    capsys: pytest.CaptureFixture[str],
    entries: list[dict[str, Any]] | None,
    status: int,
    text: str,
) -> None:
    pip_audit(entries)
    assert audit.main() == status
    captured = capsys.readouterr()
    assert text in captured.out + captured.err
