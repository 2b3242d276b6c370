"""The sandbox: the whole service with a fake WeChat and an in-memory Redis. No AppID, no server, no network.

The fakes share no code with `wxauth.wechat`: a misread rule of WeChat would otherwise be in both, and no test would
fail. This folder is never imported if a mini program is configured.
"""

from .app import create_app

__all__ = ["create_app"]
