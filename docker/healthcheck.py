"""Exit 0 while the server is ready. If it says that only a new process helps, end it: the restart policy starts one."""

import os
import signal
import sys
import urllib.error
import urllib.request

BASE = f"http://127.0.0.1:{os.environ.get('ALIGNSEG_ADMIN_PORT') or os.environ.get('ALIGNSEG_PORT', '8000')}"


def status(path: str) -> int | None:
    """Of the answer; None when there is none."""
    try:
        with urllib.request.urlopen(BASE + path, timeout=4) as answer:  # noqa: S310 - our own address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def main() -> int:
    """Docker restarts what has ended, not what is unhealthy."""
    if status("/healthz/live") == 503:
        os.kill(1, signal.SIGTERM)
        return 1
    return 0 if status("/healthz/ready") == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
