import re

import pytest
from pydantic import ValidationError

from service.settings import REPOSITORY, Settings, markdown_table, misspelt, table

OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()


def test_a_misspelt_variable_is_reported_with_the_nearest_name() -> None:
    lines = misspelt({"ALIGNSEG_MAX_BODY": "1", "ALIGNSEG_QQQ": "1", "ALIGNSEG_MODEL": "x", "HOME": "/"})
    assert lines == [
        "Unknown setting ALIGNSEG_MAX_BODY, ignored. Did you mean ALIGNSEG_MAX_BODY_BYTES?",
        "Unknown setting ALIGNSEG_QQQ, ignored.",
    ]


def test_what_kubernetes_and_the_client_set_is_not_reported() -> None:
    names = ["ALIGNSEG_SERVICE_HOST", "ALIGNSEG_SERVICE_PORT", "ALIGNSEG_PORT_8000_TCP_ADDR", "ALIGNSEG_API_KEY"]
    assert misspelt(dict.fromkeys(names, "x")) == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_means_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(Settings(), name)
    monkeypatch.setenv(f"ALIGNSEG_{name.upper()}", "")
    assert getattr(Settings(), name) == default


def test_every_setting_is_known() -> None:
    assert misspelt({f"ALIGNSEG_{name.upper()}": "x" for name in Settings.model_fields}) == []


@pytest.mark.parametrize(
    ("variable", "default", "value"),
    [
        ("ALIGNSEG_MODEL", "`weights/alignseg-lite`", "path"),
        ("ALIGNSEG_BUILD_ENGINE", "`off`", "`off`, `auto`"),
        ("ALIGNSEG_ADMIN_PORT", "not set", "port"),
        ("ALIGNSEG_API_KEYS", "not set", "text"),
        ("ALIGNSEG_API_KEYS_FILE", "not set", "path"),
        ("ALIGNSEG_CODEC_THREADS", "one for each core, at most 8", "threads"),
        ("ALIGNSEG_MAX_IN_FLIGHT", "`64`", "requests"),
        ("ALIGNSEG_MAX_BODY_BYTES", "`33554432` (32 MiB)", "bytes"),
        ("ALIGNSEG_MAX_BYTES_IN_FLIGHT", "`268435456` (256 MiB)", "bytes"),
        ("ALIGNSEG_REQUEST_TIMEOUT_MS", "`30000`", "milliseconds"),
        ("ALIGNSEG_DRAIN_TIMEOUT_S", "`30`", "seconds"),
    ],
)
def test_the_table_has_defaults_and_units(variable: str, default: str, value: str) -> None:
    (row,) = [row for row in table() if row.variable == variable]
    assert (row.default, row.value) == (default, value)


def test_every_setting_is_described() -> None:
    assert all(row.description.endswith(".") and "|" not in row.description for row in table())


def test_the_documentation_has_the_table_of_settings() -> None:
    """After a change of settings: python docs/make_settings.py."""
    written = re.search("<!-- settings -->\n(.*?)\n?<!-- /settings -->", OPERATIONS, re.DOTALL)
    assert written is not None
    assert written[1].strip() == markdown_table()


def test_the_documentation_names_no_setting_that_does_not_exist() -> None:
    names = re.findall(r"ALIGNSEG_[A-Z0-9_]+", OPERATIONS)
    assert misspelt(dict.fromkeys(names, "x")) == []


@pytest.mark.parametrize(
    ("environment", "port"),
    [({}, 8000), ({"PORT": "8080"}, 8080), ({"PORT": ""}, 8000), ({"PORT": "8080", "ALIGNSEG_PORT": "9000"}, 9000),
     ({"PORT": "8080", "ALIGNSEG_PORT": ""}, 8080)],
)  # fmt: skip
def test_platforms_set_the_port(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], port: int) -> None:
    for name in ("PORT", "ALIGNSEG_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == port
    assert Settings(port=7000).port == 7000


def test_a_port_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNSEG_PORT", raising=False)
    monkeypatch.setenv("PORT", "eighty")
    with pytest.raises(ValidationError, match="port"):
        Settings()
