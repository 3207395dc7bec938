import pytest
from typer.testing import CliRunner

from alignseg_serve import cli


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("serve", ["[env: ALIGNSEG_HOST; default: 127.0.0.1]", "[env: ALIGNSEG_PORT; default: 8000]"]),
        ("segment", ["[env: ALIGNSEG_MODEL; default: weights/alignseg-lite]", "[env: ALIGNSEG_API_KEY]"]),
        ("export", ["[default: the demo scene]", '"color": [r, g, b]']),
    ],
)
def test_help_shows_variables_and_defaults(command: str, texts: list[str]) -> None:
    """Rich drops what looks like markup: unescaped brackets vanish from the help."""
    result = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "500"})
    for text in texts:
        assert text in result.output
