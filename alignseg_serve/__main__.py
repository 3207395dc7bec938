"""python -m alignseg_serve is the `alignseg` command."""

from alignseg_serve.cli import main

main()
