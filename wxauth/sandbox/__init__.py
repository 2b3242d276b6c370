"""The sandbox: the whole service with a fake WeChat and an in-memory Redis. No AppID, no server, no network.

It shares no code with `wechat` or `sealing`, so that it can't share their misreadings, and it is never imported where
a mini program is configured.
"""

from .app import create_app

__all__ = ["create_app"]
