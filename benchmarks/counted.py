"""`python -m benchmarks.counted TOKEN`: makes calls for `instructions`, which counts what the processor does in them.

A line on standard input says which, and how often; a line on standard output that it is done.
"""

from __future__ import annotations

import os
import sys

from benchmarks.contenders.bare import app as bare
from benchmarks.contenders.decorator import app as decorated
from benchmarks.hit import hit, request
from wxauth import Settings
from wxauth.web.app import create_app


def main(token: str) -> None:
    service = create_app(Settings.from_env(os.environ))
    for app in (service, decorated):
        hit(app, token)
    header = f"Bearer {token}"
    calls = {
        "verify": request(service, "/verify", header),
        "decorator": request(decorated, "/me", header),
        "flask": request(bare, "/me", header),
    }
    print("ready", flush=True)
    for line in sys.stdin:
        name, times = line.split()
        for _ in range(int(times)):
            calls[name]()
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
