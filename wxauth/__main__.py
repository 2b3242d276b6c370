"""`python -m wxauth`."""

from .cli.commands import main

main(prog_name="python -m wxauth")
