"""Flask-JWT-Extended with a block list in Redis, configured as in its documentation."""

from __future__ import annotations

import os
from typing import Any

import redis
from flask import Flask, request
from flask_jwt_extended import JWTManager, create_access_token, get_jwt_identity, jwt_required

from benchmarks.contenders.users import SECRET, fake_user

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = SECRET
jwt = JWTManager(app)
blocklist = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


@jwt.token_in_blocklist_loader
def is_revoked(header: dict[str, Any], payload: dict[str, Any]) -> bool:
    return blocklist.get(payload["jti"]) is not None


@app.post("/login")
def log_in() -> dict[str, str]:
    return {"token": create_access_token(identity=fake_user(request.args["user"]).openid)}


@app.get("/me")
@jwt_required()
def me() -> dict[str, str]:
    return {"openid": get_jwt_identity()}
