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
    """The accepted keys. Only their digests are kept; these have equal lengths, so timing reveals nothing of a key."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def contains(self, key: str) -> bool:
        """Whether this is one of the keys. Takes equally long for each of them, and for a wrong key."""
        digest, matches = _digest(key), False
        for known in self._digests:
            matches |= hmac.compare_digest(known, digest)
        return matches

    def authorise(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether one of these headers carries a known key; names are in lower case. True if no keys are set."""
        keys = (_key_from(name, value) for name, value in headers)
        return not self or any(self.contains(key) for key in keys if key is not None)


def load(settings: Settings) -> ApiKeys:
    """Keys from ALIGNSEG_API_KEYS (separated by commas) and ALIGNSEG_API_KEYS_FILE (one per line; a # at the start of a
    line or after a space begins a comment).

    Raises SettingsError if the file cannot be read, or if either is set without a key: that would disable
    authentication by accident.
    """
    value = settings.api_keys.get_secret_value()
    keys = [key.strip() for key in value.split(",")]
    if value and not any(keys):
        raise SettingsError("ALIGNSEG_API_KEYS contains no key. Set keys separated by commas, or unset it.")
    path = settings.api_keys_file
    if path is not None:
        try:
            lines = [_COMMENT.split(line, maxsplit=1)[0].strip() for line in path.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"Cannot read ALIGNSEG_API_KEYS_FILE={path}: {error}. Correct the path or the file, or unset it."
            ) from error
        if not any(lines):
            raise SettingsError(
                f"ALIGNSEG_API_KEYS_FILE={path} contains no key. Put one key on each line, or unset it."
            )
        keys += lines
    return ApiKeys(key for key in keys if key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _key_from(name: bytes, value: bytes) -> str | None:
    """The key that a header carries. With Basic, where the key is the password, browsers can ask the user for it."""
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
