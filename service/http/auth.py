"""API keys: optional, compared in constant time, never logged."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

from service.errors import SettingsError
from service.settings import Settings

_COMMENT: Final = re.compile(r"(?:^|\s)#")


class ApiKeys:
    """The keys that open the door. Only their digests are kept: of equal length, so nothing tells a key's own."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def know(self, key: str) -> bool:
        """Whether this is one of them. Takes equally long whichever it is, and if it is none."""
        digest, found = _digest(key), False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found

    def authorise(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether one of these headers carries a known key; names are in lower case. True if no keys are set."""
        keys = (_key_in(name, value) for name, value in headers)
        return not self or any(self.know(key) for key in keys if key is not None)


def load(settings: Settings) -> ApiKeys:
    """Keys from ALIGNSEG_API_KEYS (separated by commas) and ALIGNSEG_API_KEYS_FILE (one a line; a # at its start or
    after a space begins a comment).

    Raises SettingsError when the file can't be read, or either holds none: the door must not stand open by mistake.
    """
    given = settings.api_keys.get_secret_value()
    keys = [key.strip() for key in given.split(",")]
    if given and not any(keys):
        raise SettingsError("ALIGNSEG_API_KEYS holds no key; expected some, separated by commas, or unset it.")
    path = settings.api_keys_file
    if path is not None:
        try:
            lines = [_COMMENT.split(line, maxsplit=1)[0].strip() for line in path.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"ALIGNSEG_API_KEYS_FILE={path} can't be read: {error}. Mend or unset it.") from error
        if not any(lines):
            raise SettingsError(f"ALIGNSEG_API_KEYS_FILE={path} holds no key; expected one a line, or unset it.")
        keys += lines
    return ApiKeys(key for key in keys if key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _key_in(name: bytes, value: bytes) -> str | None:
    """The key that a header carries. Basic (the key as password) lets a browser ask for it."""
    if name == b"x-api-key":
        return value.decode("utf-8", "surrogateescape")
    if name != b"authorization":
        return None
    scheme, _, credentials = value.decode("utf-8", "surrogateescape").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return _password(credentials) if scheme.lower() == "basic" else None


def _password(credentials: str) -> str | None:
    try:
        return base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
