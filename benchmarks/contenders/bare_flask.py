"""Flask with one route and no authentication: the cost of the framework."""

from __future__ import annotations

from flask import Flask

from benchmarks.contenders.users import fake_user

app = Flask(__name__)
OPENID = fake_user(0).openid


@app.get("/me")
def me() -> dict[str, str]:
    return {"openid": OPENID}
