"""Flask-Session over Redis, configured as its documentation says to."""

from __future__ import annotations

import os
from dataclasses import asdict

import redis
from flask import Flask, abort, request, session
from flask_session import Session

from benchmarks.identity import visitor

app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.from_url(os.environ["REDIS_URL"]))
Session(app)


@app.post("/login")
def log_in() -> dict[str, str]:
    session.update(asdict(visitor(request.args["user"])))
    return {}


@app.get("/me")
def me() -> dict[str, str]:
    if "openid" not in session:
        abort(401)
    return {"openid": session["openid"]}
