"""Flask-Session with Redis, configured as in its documentation."""

from __future__ import annotations

import os
from dataclasses import asdict

import redis
from flask import Flask, abort, request, session
from flask_session import Session

from benchmarks.contenders.users import fake_user

app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.from_url(os.environ["REDIS_URL"]))
Session(app)


@app.post("/login")
def log_in() -> dict[str, str]:
    session.update(asdict(fake_user(request.args["user"])))
    return {}


@app.get("/me")
def me() -> dict[str, str]:
    if "openid" not in session:
        abort(401)
    return {"openid": session["openid"]}
