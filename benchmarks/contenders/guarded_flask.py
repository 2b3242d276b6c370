"""A Flask application with one route that needs a login with wxauth."""

from __future__ import annotations

from flask import Flask

from wxauth import WxAuth, login_required, wx_session

app = Flask(__name__)
WxAuth(app)


@app.get("/me")
@login_required
def me() -> dict[str, str]:
    return {"openid": wx_session.openid}
