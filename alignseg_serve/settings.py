"""The server's settings, with arguments on top of ALIGNSEG_* environment variables."""

from collections.abc import Mapping

from pydantic import ValidationError

from service.errors import SettingsError
from service.settings import Settings, variable


def load_settings(arguments: Mapping[str, object], prefix: str = "") -> Settings:
    """Settings of the environment; `arguments` that are not None replace them.

    prefix: of an argument's name in messages, "--" for command line options.
    Raises SettingsError that names each invalid argument or variable.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [(str(e["loc"][0]) if e["loc"] else "settings", e["msg"], e["input"]) for e in error.errors()]
        raise SettingsError(
            "; ".join(
                f"{prefix + name if name in given else variable(name)}: {message}, got {value!r}"
                for name, message, value in problems
            )
        ) from None
