"""Exit 0 while the server is ready. Where only a new process helps, stop it: the restart policy starts another."""

import os
import signal
import sys
import urllib.error
import urllib.request

_VARIABLES = ("ALIGNSEG_ADMIN_PORT", "ALIGNSEG_PORT", "PORT")
BASE = f"http://127.0.0.1:{next(filter(None, map(os.environ.get, _VARIABLES)), '8000')}"


def status(path: str) -> int | None:
    """The status of the response; None if there is none."""
    try:
        with urllib.request.urlopen(BASE + path, timeout=4) as response:  # noqa: S310 - our own address
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def main() -> int:
    """Docker does not restart an unhealthy container, only one that has exited."""
    if status("/healthz/live") == 503:
        os.kill(1, signal.SIGTERM)
        return 1
    return 0 if status("/healthz/ready") == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
