"""Builds docker/Dockerfile.cpu with buildah and runs it: as root on Linux, without a Docker daemon.

The Dockerfile's base image comes from a registry, which test machines may not reach. It is replaced by a Debian that
debootstrap installs, with Debian's Python. That Debian is kept in BASE_ARCHIVE for later runs.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile.cpu"
TOOLS = ("buildah", "debootstrap", "unshare", "nsenter", "setpriv")
BASE_ARCHIVE = Path.home() / ".cache" / "alignseg-tests" / "debian-bookworm-python3.tar"
# So that pip reaches the same package index through the same certificates as on this machine.
SHARED = ("/etc/pip.conf", "/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates")
# A container's view: its own mounts and process ids, a read-only root, /tmp in memory. $1 is the root.
ENTER = """set -eu
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
mount -t tmpfs tmpfs "$1/tmp" && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev"
root="$1"; shift
set -- --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
exec chroot "$root" setpriv "$@"
"""


def missing() -> str | None:
    """Why the image cannot be built on this machine; None if it can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install buildah debootstrap"
    return None if os.geteuid() == 0 else "needs root, to mount and chroot"


@dataclass(frozen=True)
class Image:
    """A built image. root: its files. config: User, Env, Entrypoint and so on. storage: options of buildah."""

    root: Path
    config: dict[str, object]
    storage: list[str]

    @property
    def environment(self) -> dict[str, str]:
        entries = self.config["Env"]
        assert isinstance(entries, list)
        return dict(entry.split("=", 1) for entry in entries)


@contextmanager
def build(work: Path) -> Generator[Image, None, None]:
    """Build the image below `work`, which needs 4 GB."""
    buildah = Buildah(work)
    try:
        buildah.create_base(re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)[0])
        volumes = [f"--volume={path}:{path}:ro" for path in SHARED if Path(path).exists()]
        options = ["--network=host", "--pull-never", "--format=docker", *volumes]
        buildah("bud", *options, f"--file={DOCKERFILE}", "--tag=alignseg-serve:cpu", str(ROOT))
        container = buildah("from", "--pull-never", "localhost/alignseg-serve:cpu")
        config = json.loads(buildah("inspect", "--type=image", "localhost/alignseg-serve:cpu"))["Docker"]["config"]
        yield Image(Path(buildah("mount", container)), config, buildah.storage)
    finally:
        buildah("umount", "--all")
        remove(work)


class Buildah:
    """The command, with a storage of its own."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.storage = ["--root", f"{work}/storage", "--runroot", f"{work}/run", "--storage-driver=vfs"]

    def __call__(self, command: str, *arguments: str) -> str:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        return run(["buildah", *self.storage, command, *arguments], environment)

    def create_base(self, name: str) -> None:
        """An image called `name`: Debian with Python."""
        if not BASE_ARCHIVE.exists():
            self._install_debian()
        container = self("from", "scratch")
        self("add", "--quiet", container, str(BASE_ARCHIVE), "/")
        self("commit", "--quiet", "--rm", container, f"localhost/{name}")

    def _install_debian(self) -> None:
        target, archive = self.work / "debian", BASE_ARCHIVE.with_suffix(f".{os.getpid()}")
        sites = run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"]).splitlines()
        mirror = next(line.split()[0] for line in sites if line.endswith(" bookworm"))
        # In a mount namespace of its own, so that no mount of /proc is left behind.
        run(
            [
                "unshare",
                "--mount",
                "debootstrap",
                "--variant=minbase",
                "--include=python3,python3-venv",
                "bookworm",
                str(target),
                mirror,
            ]
        )
        (target / "usr/bin/python").symlink_to("python3")
        archive.parent.mkdir(parents=True, exist_ok=True)
        run(["tar", "--create", "--one-file-system", f"--file={archive}", f"--directory={target}", "."])
        archive.rename(BASE_ARCHIVE)
        remove(target)


class Container:
    """The image's server as a process. url: where it listens."""

    def __init__(self, image: Image, port: int) -> None:
        self.image, self.port, self.url = image, port, f"http://127.0.0.1:{port}"
        settings = {**image.environment, "ALIGNSEG_HOST": "127.0.0.1", "ALIGNSEG_PORT": str(port)}
        self.settings = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
        command = [*self.settings, *image.config["Entrypoint"], *image.config["Cmd"]]  # type: ignore[misc]
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", str(image.root)]
        self.process = subprocess.Popen([*inside, *command], stderr=subprocess.PIPE, text=True)  # noqa: S603

    @property
    def pid(self) -> int:
        """Of the server, which is 1 inside."""
        parent = self.process.pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as the server's user."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--setuid=10001", "--setgid=10001"]
        return subprocess.run([*enter, *self.settings, *command], capture_output=True, text=True, check=False)  # noqa: S603

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and the log."""
        os.kill(self.pid, signal.SIGTERM)
        _, log = self.process.communicate(timeout=300)
        return self.process.returncode, log


@contextmanager
def running(image: Image) -> Generator[Container, None, None]:
    """A server on a free port of 127.0.0.1; it may not be ready yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    container = Container(image, port)
    try:
        yield container
    finally:
        if container.process.poll() is None:
            container.process.kill()
            container.process.communicate()


def remove(folder: Path) -> None:
    """Delete a folder, but nothing of what may be mounted inside."""
    run(["rm", "-rf", "--one-file-system", str(folder)])


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The command's output. Raises AssertionError with all that it wrote if it fails."""
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert result.returncode == 0, f"{command[:2]} exited with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    return result.stdout.strip()
