"""Write the table of settings into operations.md, between its two comments.

python docs/make_settings.py
"""

import re
from pathlib import Path

from service.settings import markdown_table

DOCUMENT = Path(__file__).parent / "operations.md"
_BETWEEN = re.compile("(?<=<!-- settings -->\n).*(?=<!-- /settings -->)", re.DOTALL)


def main() -> None:
    """Replace what is between the comments."""
    DOCUMENT.write_text(_BETWEEN.sub(lambda _: markdown_table() + "\n", DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
