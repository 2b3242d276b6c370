"""`python -m tests.fuzz.one TARGET <libFuzzer options>`: run one target with atheris."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["wxauth", "tests.fuzz", "json"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    logging.disable()
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda data: target(data) and None)
    atheris.Fuzz()
