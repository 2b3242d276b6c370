"""`python -m tests.fuzz SECONDS`: run all three targets in turn. The exit code is 1 if a target finds a fault.

Each finding is saved in the corpus, so that `make test` runs it, too.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = ("token", "record", "wechat")
HERE = Path(__file__).parent


def fuzz(target: str, seconds: int) -> int:
    """Run libFuzzer, and return its exit code. Its progress goes to stderr."""
    corpus = HERE / "corpus" / target
    with tempfile.TemporaryDirectory() as found:
        command = [
            *(sys.executable, "-m", "tests.fuzz.one", target, found, str(corpus)),
            f"-max_total_time={seconds}",
            f"-artifact_prefix={corpus}/found-",
            f"-dict={HERE / 'dictionary.txt'}",
            *("-max_len=2048", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"),
        ]
        return subprocess.run(command, cwd=HERE.parent.parent, check=False).returncode


def main(arguments: list[str]) -> int:
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed. Its wheels need Linux on x86-64 and Python 3.11 to 3.13.\n")
        return 2
    seconds = max(int(arguments[0]) // len(TARGETS), 1) if arguments else 20
    failed = []
    for target in TARGETS:
        sys.stderr.write(f"=== {target}: {seconds} s\n")
        if fuzz(target, seconds):
            failed.append(target)
    sys.stderr.write(f"=== found something: {', '.join(failed) or 'nothing'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
