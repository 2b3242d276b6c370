"""The login as tutorials write it: one Flask view. It keeps the session in Redis, in plain text."""

from __future__ import annotations

import json
import os
import secrets

import redis
import requests
from flask import Flask, request

from benchmarks.contenders.users import APPID, SECRET

app = Flask(__name__)
wechat = requests.Session()
store = redis.from_url(os.environ["REDIS_URL"])
EXCHANGE = os.environ["WXAUTH_WECHAT_URL"] + "/sns/jscode2session"


@app.post("/login")
def log_in() -> dict[str, str]:
    code = request.get_json()["code"]
    query = {"appid": APPID, "secret": SECRET, "js_code": code, "grant_type": "authorization_code"}
    user = wechat.get(EXCHANGE, params=query, timeout=5).json()
    found = {name: user[name] for name in ("openid", "session_key", "unionid")}
    token = secrets.token_urlsafe(32)
    store.setex(f"session:{token}", 604800, json.dumps(found))
    return {"token": token}
