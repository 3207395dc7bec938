"""The bill of materials of an unpacked image."""

import json
from pathlib import Path

import pytest

from requirements import sbom

pytest.importorskip("cyclonedx_py", reason="needs cyclonedx-bom: make dev")


def components(path: Path) -> dict[str, str]:
    document = json.loads(path.read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "alignseg-serve"
    return {component["name"].lower(): component["version"] for component in document["components"]}


def test_of_a_folder_of_packages_without_running_its_python(tmp_path: Path) -> None:
    information = tmp_path / "site-packages" / "example-1.2.3.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.2.3\n")
    sbom.of_site_packages(information.parent, tmp_path / "image.cdx.json")
    assert components(tmp_path / "image.cdx.json") == {"example": "1.2.3"}
