"""Flask with one route and nobody to guard it: what the framework itself costs."""

from __future__ import annotations

from flask import Flask

from benchmarks.identity import visitor

app = Flask(__name__)
OPENID = visitor(0).openid


@app.get("/me")
def me() -> dict[str, str]:
    return {"openid": OPENID}
