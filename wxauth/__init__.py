"""A login service for WeChat mini programs, and a Flask extension for the applications behind it.

docs/architecture.md has an order to read it in.
"""

from .errors import WxAuthError
from .sessions.store import WxSession
from .settings import Settings
from .web.actions import logged_in, logged_out
from .web.extension import WxAuth
from .web.guard import login_required, wx_session, wx_user

__all__ = [
    "Settings",
    "WxAuth",
    "WxAuthError",
    "WxSession",
    "logged_in",
    "logged_out",
    "login_required",
    "wx_session",
    "wx_user",
]

__version__ = "0.1.0"
