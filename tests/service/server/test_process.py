import subprocess
import sys

from service.server.process import RESERVED_FILES


def test_the_open_file_limit_is_raised_up_to_the_hard_limit() -> None:
    program = (
        "import resource; from service.server.process import raise_open_file_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(raise_open_file_limit(4096), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )

    def limits(soft: int, hard: int) -> str:
        code = program.format(soft=soft, hard=hard)
        command = [sys.executable, "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603

    files = 4096 + RESERVED_FILES
    assert limits(1024, 10_000) == f"4096 ({files}, 10000)"
    assert limits(9000, 10_000) == "4096 (9000, 10000)"
    assert limits(512, 1024) == f"{1024 - RESERVED_FILES} (1024, 1024)"
    assert limits(64, 64) == "1 (64, 64)"


def test_malloc_arenas_are_limited_with_glibc() -> None:
    import platform
    import subprocess
    import sys

    command = [
        sys.executable,
        "-c",
        "from service.server.process import limit_malloc_arenas; print(limit_malloc_arenas())",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    assert output == str(platform.libc_ver()[0] == "glibc")
