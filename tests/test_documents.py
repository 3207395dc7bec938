"""What documents name exists: commands, options, make targets, settings, files, links. Examples run in tests/e2e."""

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from service.settings import REPOSITORY, Settings, variable

DOCUMENTS: Final = sorted(
    path for path in REPOSITORY.rglob("*.md") if not path.relative_to(REPOSITORY).parts[0].startswith(".")
)
NAMES: Final = [str(path.relative_to(REPOSITORY)) for path in DOCUMENTS]
SUBCOMMANDS: Final = ("serve", "segment", "export", "evaluate", "offsets", "label-studio")
MODULE: Final = r"-m (?:benchmarks|training|model_export)[\w.]*"
COMMAND: Final = re.compile(
    rf"(?:python (?:{MODULE}|model_export/\w+\.py)|{MODULE}|(?<![\w/.-])alignseg (?:{'|'.join(SUBCOMMANDS)})\b)[^`\n]*"
)
NOT_PART: Final = re.compile(r"\s#.*|&&.*|[|;(].*|[:,]\s.*$")  # of a command: a comment, the next command, prose
FLAG: Final = re.compile(r"--[a-z][a-z0-9-]*")
LINK: Final = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
PACKAGES: Final = "service|model_export|training|alignseg_serve|benchmarks|tests|docs|docker|deploy|weights"
PATH: Final = re.compile(rf"`((?:{PACKAGES})/[\w./-]*[\w/])`")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)


def commands(document: Path) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Each command of this project that a document has: the program, as arguments of Python, and its options."""
    for match in COMMAND.finditer(document.read_text().replace("\\\n", " ")):
        words = shlex.split(NOT_PART.sub("", match[0]).replace("'", "").replace('"', ""))
        flags = {flag[0] for word in words if (flag := FLAG.match(word.strip("[")))}
        if words[0] == "alignseg":
            yield ("-m", "alignseg_serve", words[1]), flags
        elif words[0] == "-m":
            yield ("-m", words[1].rstrip(".")), flags
        else:
            yield tuple(words[1:3]) if words[1] == "-m" else (words[1],), flags


@functools.cache
def help_of(*program: str) -> str:
    command = [sys.executable, *program, "--help"]
    environment = {**os.environ, "COLUMNS": "400", "TERM": "dumb"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)  # noqa: PLW1510, S603
    assert done.returncode == 0, done.stderr
    return done.stdout


@every_document
def test_commands_and_their_options_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return  # it names what is gone
    for program, flags in commands(document):
        name = program[1] if program[0] == "-m" else program[0]
        assert find_spec(name) is not None if program[0] == "-m" else (REPOSITORY / name).is_file(), name
        for flag in flags:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_of(*program)), f"{' '.join(program)} has no {flag}"


def test_there_are_commands_and_options_to_check() -> None:
    pairs = {name: list(commands(document)) for name, document in zip(NAMES, DOCUMENTS, strict=True)}
    assert len(pairs["README.md"]) >= 8
    assert len(pairs["benchmarks/results/README.md"]) >= 18
    assert sum(len(flags) for several in pairs.values() for _, flags in several) >= 50


@every_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^|\s{4}|&& |[A-Z]=\S+ )make ([a-z-]+)", document.read_text(), re.MULTILINE)) <= targets


@every_document
def test_settings_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return
    others = {"ALIGNSEG_API_KEY"}  # the client's
    for name in ("docker-compose.yml", "docker/build_engines.sh"):
        others |= set(re.findall(r"ALIGNSEG_[A-Z_]+", (REPOSITORY / name).read_text()))
    known = {variable(name) for name in Settings.model_fields} | others
    assert set(re.findall(r"ALIGNSEG_[A-Z_]*[A-Z]", document.read_text())) <= known


@every_document
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text()):
        file = document.parent / target if target else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{target}#{anchor}"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@every_document
def test_files_named_by_their_path_exist(document: Path) -> None:
    for name in PATH.findall(document.read_text()):
        assert (REPOSITORY / name).exists(), name


def test_the_readme_is_one_page_or_two() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120


@every_document
def test_prose_is_folded_at_120_columns(document: Path) -> None:
    code = False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        code ^= line.startswith("```")
        if not (code or line.startswith(("    ", "|")) or "](" in line):
            assert len(line) <= 120, f"line {number}"
