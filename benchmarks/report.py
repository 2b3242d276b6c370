"""`benchmarks/README.md`, written from the results alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.bars import BARS, Bar, Results, check_cost, median
from benchmarks.instructions import SHOWN
from benchmarks.keyspace import REAL
from benchmarks.load import CONNECTIONS
from benchmarks.samples import OUTSIDE
from benchmarks.table import BY_NAME, CONTENDERS, GRANIAN_THREADS, GUNICORN_THREADS, Contender
from benchmarks.throughput import ROUNDS_A_LIFE, SESSIONS, WARM_UP

MOST_PACKAGES: Final = 8
COLUMNS: Final = (
    "", "requests/s", "±", "processor, µs", "core", "Redis, µs", "p50, ms", "p99, ms", "failed", "first answer, s",
)  # fmt: skip
INTRODUCTION: Final = f"""\
# Benchmarks

This service beside what a user would pick instead: on one machine, in one run, in turns. `make bench` writes this
file, [results.json](results.json), [scale.md](scale.md) and the charts, and fails if a bar is missed.

    make bench                       # ROUNDS=… SECONDS=… SEED=… for another size, BENCH_PYTHON=… for another Python
    make bench BENCH="--quick"       # a try, into build/bench

All contenders run side by side on one core (`taskset -c 0`), each over a Redis of its own; {SESSIONS:,} users are
logged in, and it is checked that the first of them is known and others are turned away. In every round each
contender has one turn, in another order each time, while the others have nothing to do: after {WARM_UP} s to get
warm, wrk asks for SECONDS over {CONNECTIONS} connections that are kept, each user in turn. Turns are short because a
machine's own pace changes within a minute, and every {ROUNDS_A_LIFE} rounds all are started anew. wrk (1 thread),
Redis and this harness share the other core, so whoever asks Redis gets that for nothing: it is a column of its own,
and no ratio below counts it.

Processor time is utime and stime of the server and all its children from `/proc`, divided by the requests; where
"core" says how much of a second a contender took for the requests of a second, near 100 % means that it was the
contender that could do no more, and not the load. All on Python run in one worker of one interpreter: on Granian
with the flags of our Procfile, or on gunicorn with a gthread worker of {GUNICORN_THREADS} threads, which is how
Flask applications are usually served. On Granian our service, and nothing but Granian, have the Procfile's 96
threads, because logins wait for WeChat; Flask applications, ours too, have {GRANIAN_THREADS}: with 96, our guarded
view was answered a tenth less often. To gunicorn it makes no difference here (tried: 1, 2, 3, 8). The interpreter is
by default the system's, which like nginx and Node is built with every optimisation; the last table names it. Flask
hands every answer over as an iterator, so bare Flask, Flask-Session and Flask-JWT-Extended are streamed by Granian,
and Werkzeug copies the headers of each; what `@login_required` guards goes as a list, with its headers as they are,
where that makes no difference to the client. What stands beside `/verify` answers forward-auth as we do (204 and
three headers), but for the article's Koa; all others answer the same JSON.
"""

NOT_MEASURED: Final = """\
## What was not measured

- Several workers or machines: everything here is one core. [scale.md](scale.md) multiplies, on paper.
- TLS, to clients or to Redis; a proxy in front; a Redis across a network, which would slow everyone who asks Redis
  for each request, and us only for what is not at hand.
- WeChat itself: a fake one answers, at once or after 50 ms.
- Sessions that are not at hand, beyond "cache off": a real mixture lies between the two lines.
- OpenResty's own build and its newest libraries: nginx and its Lua are Debian's. PyPy, uWSGI, Bun, Deno: not here.
- An interpreter that was built from source without optimisations. Bare Flask in a loop took a quarter more on one.
- A login that replaces or displaces a session: each of those above is a user's first.
- What our cache asks Redis again after a minute: with the turns of others in between, most of that falls into the
  seconds in which we get warm. Under a load without a pause it would be fewer than one request in a hundred.
- Contenders' login, logout and revocation. JWT without a list can't revoke at all, so it is not the same service.
- Numbers of threads for Flask-Session and Flask-JWT-Extended on Granian, and for our service, but those said above.
"""


def written(results: Results) -> str:
    parts = [
        INTRODUCTION,
        f"The run below is of {results['date']}: `make bench ROUNDS={results['rounds']} SECONDS={results['seconds']} "
        f"SEED={results['seed']}`.\n",
        "## Bars\n",
        table(("bar", "needed", "measured", ""), _bars(results)),
        "## Requests\n",
        "Medians of the rounds; behind ± half of the way from the least to the most.\n",
        table(
            COLUMNS,
            [_row(results, contender) for contender in CONTENDERS if results["turns"].get(contender.name)],
        ),
        "![requests a second](charts/rates.svg)\n",
        "![processor time a request](charts/processor.svg)\n",
        "![p99](charts/latency.svg)\n",
        _others(results),
        _layers(results["layers"]),
        _instructions(results.get("instructions", {})),
        _samples(results.get("samples", {})),
        NOT_MEASURED,
        "## The machine\n",
        table(("", ""), list(results["machine"].items())),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _bars(results: Results) -> list[Sequence[str]]:
    return [_bar(bar, results) for bar in BARS]


def _bar(bar: Bar, results: Results) -> tuple[str, ...]:
    sign = "≤" if bar.at_most else "≥"
    return (
        bar.what,
        f"{sign} {bar.bound:g}",
        f"{bar.read(results):.3g}",
        "yes" if bar.holds(results) else "**missed**",
    )


def _row(results: Results, contender: Contender) -> tuple[str, ...]:
    rates = [turn["a_second"] for turn in results["turns"][contender.name]]
    half = (max(rates) - min(rates)) / 2 / statistics.median(rates)
    processor, redis, p50, p99 = (
        median(results, contender.name, name) for name in ("processor", "redis", "p50", "p99")
    )
    started = median(results, contender.name, "started_in")
    return (
        contender.title,
        f"{statistics.median(rates):,.0f}",
        f"{half:.0%}",
        f"{processor:.1f}",
        f"{processor * statistics.median(rates) / 1e6:.0%}",
        *(f"{value:.1f}" for value in (redis, p50, p99)),
        str(sum(turn["failed"] for turn in results["turns"][contender.name])),
        f"{started:.2f}",
    )


def _others(results: Results) -> str:
    memory = results["memory"]
    sizes = sorted(map(int, results["keyspace"]))
    logins = [
        (f"{delay} ms", f"{it['login']:.2f}", f"{it['login_p99']:.2f}", f"{it['exchange']:.2f}", f"{it['added']:.2f}",
         f"{it['processor']:,.0f}", f"{it['redis']:,.0f}")
        for delay, it in results["login"].items()
    ]  # fmt: skip
    bytes_ = [
        ("wxauth" if name == "verify" else BY_NAME[name].title, f"{it['keys']:.0f}", f"{it['usage']:,.0f}",
         f"{it['grown']:,.0f}")
        for name, it in results["bytes"].items()
    ]  # fmt: skip
    checks = [(f"{size:,}", f"{check_cost(results, size):.1f}", f"{_rate(results, size):,.0f}") for size in sizes]
    return "\n".join(
        [
            "## A login beside WeChat's own time\n",
            "One after the other over one connection; medians. What we add is the login less the exchange alone.\n",
            table(("WeChat takes", "login, ms", "p99", "exchange alone, ms", "**we add**, ms", "processor, µs",
                   "Redis, µs"), logins),
            "## Bytes in Redis for a logged-in user\n",
            "All keep appid, openid, unionid and session_key, but nginx, which keeps no session_key. Ours also keeps "
            "the user's own list, and all of it is sealed. MEMORY USAGE of all keys, and what Redis grew by.\n",
            table(("", "keys", "MEMORY USAGE", "Redis grew by"), bytes_),
            "![bytes](charts/bytes.svg)\n",
            "## A check among more and more sessions\n",
            f"Cache off. Up to {REAL:,} sessions are real (made by SessionStore, written through pipelines) and "
            "asked about in turn; the rest is noise of the same sizes under other names, so the keyspace grows. "
            "Processor time of the worker and of Redis.\n",
            table(("sessions", "processor, µs", "requests/s"), checks),
            "![keyspace](charts/keyspace.svg)\n",
            "## Memory of a worker\n",
            f"{memory['warm'] / 2**20:.0f} MiB with one session at hand, {memory['full'] / 2**20:.0f} MiB with "
            f"{memory['sessions']:,} (RSS).\n",
        ]
    )  # fmt: skip


def _rate(results: Results, size: int) -> float:
    return statistics.median(float(turn["a_second"]) for turn in results["keyspace"][str(size)])


def _layers(layers: Mapping[str, Mapping[str, float]]) -> str:
    def rows(name: str) -> list[Sequence[str]]:
        return [(part, f"{value:.1f}") for part, value in layers[name].items()]

    return "\n".join(
        [
            "## Where the microseconds go\n",
            "Without a server, in one thread, by the thread's own clock, the best of many short slices "
            "(`benchmarks/hit.py`). What is missing to the processor time above is Granian's: parsing, the hand-over "
            'to a Python thread and back, writing; see "nothing but Granian".\n',
            table(("`/verify`, from the cache", "µs"), rows("verify")),
            table(("`@login_required`, from the cache", "µs"), rows("decorator")),
            "The functions that take most of the latter themselves, by cProfile, scaled to its true length:\n",
            table(("function", "µs"), rows("functions")),
        ]
    )


def _instructions(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each function of C, a column for each call."""
    if not counts:
        return "Instructions: not counted (valgrind was not there).\n"
    rows = [("in all", *(f"{it['all']:,}" for it in counts.values()))]
    for function in counts[SHOWN]["functions"]:
        rows.append((function, *(f"{it['functions'][function]:,}" for it in counts.values())))
    return "\n".join(
        [
            "The same calls in instructions, which callgrind counts, and the functions of C that take most of a "
            "guarded view's. They hardly depend on what else the machine does.\n",
            table(("", *(BY_NAME[name].title for name in counts)), rows),
        ]
    )


def _samples(profiles: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each of the packages that are seen most, a column for each profile."""
    seen = [profile for profile in profiles.values() if profile]
    if not seen:
        return "In the running server: not measured (py-spy was not there, or may not look into other processes).\n"
    all_packages = {package for profile in seen for package in profile}
    packages = sorted(all_packages, key=lambda it: -sum(profile.get(it, 0) for profile in seen))[:MOST_PACKAGES]
    rows = [
        (it, *(f"{profile.get(it, 0):.0%}" if profile else "-" for profile in profiles.values())) for it in packages
    ]
    return "\n".join(
        [
            "And in the running server, under load: whose code holds the interpreter, by py-spy. "
            f'"{OUTSIDE}" is Granian\'s own code; "-" is a server that py-spy could not look into.\n',
            table(("", *(BY_NAME[name].title for name in profiles)), rows),
        ]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As Markdown; all columns but the first to the right."""
    rule = "|".join(["---", *["---:"] * (len(head) - 1)])
    lines = [" | ".join(cells) for cells in (head, *rows)]
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:]), ""])
