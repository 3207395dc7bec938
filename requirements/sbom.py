"""Write a software bill of materials (CycloneDX, JSON) of each environment: `make sbom`.

    python requirements/sbom.py                          .venv, .venv-export, .venv-dev and .venv-gpu, where they exist
    python requirements/sbom.py --image alignseg-serve:cpu    of an image, with docker (or --engine podman, buildah)

Files are written to sbom/.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[1]
OUTPUT: Final = PROJECT / "sbom"
ENVIRONMENTS: Final = (".venv", ".venv-export", ".venv-dev", ".venv-gpu")
IN_IMAGE: Final = "/opt/alignseg/lib"


def of_python(python: Path, output: Path, site_packages: Path | None = None) -> None:
    """Describe the packages that `python` sees. site_packages: a further folder of packages."""
    output.parent.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}  # of an environment in which this project is not installed
    if site_packages:
        environment["PYTHONPATH"] = str(site_packages)
    project = ["--pyproject", str(PROJECT / "pyproject.toml"), "--mc-type", "application"]
    command = [sys.executable, "-m", "cyclonedx_py", "environment", *project, "--output-reproducible"]
    subprocess.run([*command, f"--output-file={output}", str(python)], env=environment, check=True)
    print(output.relative_to(PROJECT) if output.is_relative_to(PROJECT) else output)


def of_site_packages(site_packages: Path, output: Path) -> None:
    """Describe a folder of packages, such as that of an unpacked image, without running anything in it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False, symlinks=True)
        of_python(Path(folder, "bin", "python"), output, site_packages)


def of_image(image: str, engine: str, options: Sequence[str] = ()) -> None:
    """Describe the packages of an image. engine: docker, podman or buildah. options: of buildah, as for its storage."""
    output = OUTPUT / f"image-{image.replace(':', '-').replace('/', '-')}.cdx.json"
    if engine == "buildah":
        _of_mounted_image(image, ["buildah", *options], output)
        return
    create = subprocess.run([engine, "create", image], capture_output=True, text=True, check=True)
    container = create.stdout.strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([engine, "cp", f"{container}:{IN_IMAGE}", folder], check=True)
            of_site_packages(_site_packages(Path(folder, "lib")), output)
    finally:
        subprocess.run([engine, "rm", container], capture_output=True, check=False)


def _of_mounted_image(image: str, buildah: list[str], output: Path) -> None:
    def run(*arguments: str) -> str:
        return subprocess.run([*buildah, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    container = run("from", "--pull-never", image)
    try:
        of_site_packages(_site_packages(Path(run("mount", container) + IN_IMAGE)), output)
    finally:
        run("rm", container)


def _site_packages(lib: Path) -> Path:
    (folder,) = lib.glob("python3*/site-packages")
    return folder


def main() -> None:
    """Parse the command line; describe an image, or every environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="name and tag of an image")
    parser.add_argument("--engine", default="docker", help="docker (default), podman or buildah")
    options = parser.parse_args()
    if options.image:
        of_image(options.image, options.engine)
        return
    pythons = {name: PROJECT / name / "bin" / "python" for name in ENVIRONMENTS}
    present = {name: python for name, python in pythons.items() if python.exists()}
    if not present:
        sys.exit(f"There is none of {', '.join(ENVIRONMENTS)}. Create one first: make install, or make dev.")
    for name, python in present.items():
        of_python(python, OUTPUT / f"{name.removeprefix('.')}.cdx.json")


if __name__ == "__main__":
    main()
