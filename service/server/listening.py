"""The listening sockets. They are bound before the model is loaded: a port in use is reported at once."""

import errno
import os
import socket
from typing import Final

from service.errors import SettingsError
from service.settings import Settings

# uvloop (libuv since 1.45) accepts one connection per listening descriptor and iteration of the loop. Under a flood of
# new connections an iteration takes milliseconds, and clients would wait seconds for a 429.
DESCRIPTORS: Final = 8
_IN_USE: Final = (
    "Stop the process that uses it, or choose another port with {setting}; 0 lets the system choose a free one."
)
_FIXES: Final = {
    errno.EADDRINUSE: _IN_USE,
    errno.EACCES: "Ports below 1024 need privileges. Choose another port with {setting}.",
}
_WRONG_HOST: Final = "ALIGNSEG_HOST (--host) must be an address of this machine, or 0.0.0.0 for all of them."


def bind(settings: Settings) -> list[socket.socket]:
    """One address, bound but not listening until the model is warm, under DESCRIPTORS descriptors.

    Raises SettingsError when it, or the admin port, can't be used.
    """
    check_admin_port(settings)
    bound = _bind(settings.host, settings.port, "ALIGNSEG_PORT (--port)")
    return [bound, *(bound.dup() for _ in range(DESCRIPTORS - 1))]


def check(settings: Settings) -> None:
    """Raises SettingsError when another process has one of the ports, which something else than `bind` will open."""
    for bound in bind(settings):
        bound.close()


def check_admin_port(settings: Settings) -> None:
    """Raises SettingsError when the admin port can't be used."""
    if settings.admin_port is None:
        return
    if settings.admin_port and settings.admin_port == settings.port:
        raise SettingsError(
            f"ALIGNSEG_PORT and ALIGNSEG_ADMIN_PORT are both {settings.port}. Choose two different ports, or remove "
            "ALIGNSEG_ADMIN_PORT: health and metrics are then on the main port."
        )
    _bind(settings.host, settings.admin_port, "ALIGNSEG_ADMIN_PORT").close()


def _bind(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise not_listening(host, port, error, setting) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise not_listening(host, port, error, setting) from error
    return bound


def not_listening(host: str, port: int, error: OSError, setting: str = "ALIGNSEG_PORT (--port)") -> SettingsError:
    """The error for a port that can't be used, with how to go on."""
    reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
    fix = _WRONG_HOST if isinstance(error, socket.gaierror) else _FIXES.get(error.errno or 0, _WRONG_HOST)
    return SettingsError(f"Cannot listen on {host} port {port}: {reason}. {fix.format(setting=setting)}")
