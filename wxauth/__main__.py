"""`python -m wxauth`."""

from .cli import main

main(prog_name="python -m wxauth")
