"""CONTRIBUTING.md says of CI and of the Makefile what they do."""

import re
from typing import Final

from service.settings import REPOSITORY

CONTRIBUTING: Final = (REPOSITORY / "CONTRIBUTING.md").read_text()
COMMAND: Final = re.compile(r"make [a-z-]+")


def test_ci_runs_the_commands_that_contributing_lists() -> None:
    ci = [line for line in (REPOSITORY / ".ci" / "run").read_text().splitlines() if COMMAND.fullmatch(line)]
    sentence = re.search(r"CI runs `\.ci/run`[^.]*\.", CONTRIBUTING)
    assert ci
    assert sentence is not None
    assert COMMAND.findall(sentence[0]) == ci


def test_every_make_command_in_contributing_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    commands = set(COMMAND.findall("\n".join(re.findall(r"^    make.*|`make[^`]*`", CONTRIBUTING, re.MULTILINE))))
    assert len(commands) >= 5
    assert {command.removeprefix("make ") for command in commands} <= targets
