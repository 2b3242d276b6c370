"""The service, and an application with the routes below /auth, for a server that traces them or reports their errors.

Both have two bugs: a receiver of `logged_in` fails if the device is "bug", and so does the guarded view /orders.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import sentry_sdk
from flask import Flask

from wxauth import WxAuth, logged_in, login_required, wx_session
from wxauth.wsgi import app as service
from wxauth.wsgi import settings

# Without a DSN there is no report.
sentry_sdk.init(dsn=os.environ.get("SENTRY_DSN"), traces_sample_rate=1.0)
application = Flask(__name__)
WxAuth(application, settings, url_prefix="/auth")


@login_required
def orders() -> NoReturn:
    variable_of_the_view = f"an app with {len(wx_session.appid)} characters"
    raise RuntimeError(f"a bug in a view, {variable_of_the_view}")


def fail(_: Flask, session: Any) -> None:
    if session.device == "bug":
        raise RuntimeError("a bug in a receiver")


logged_in.connect(fail)
for app in (service, application):
    app.add_url_rule("/orders", view_func=orders)
