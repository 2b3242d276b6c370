"""An application beside the service: the same environment, the same Redis, and no code about WeChat.

pip install <a checkout of wxauth>
flask --app app run --port 9000
"""

import os

from flask import Flask

from wxauth import Settings, WxAuth, login_required, wx_session

settings = Settings.from_env(os.environ)
app = Flask(__name__)
auth = WxAuth(app, settings)
if not app.debug:
    # Granian would copy them into each request. With --debug the reloader passes them to its child.
    settings.remove_secrets(os.environ)


@app.get("/orders")
@login_required
def orders():
    return {"openid": wx_session.openid, "orders": []}


@app.delete("/session")
@login_required(touch=False)
def log_out():
    auth.log_out(wx_session)
    return "", 204
