"""The sandbox: the whole service with a fake WeChat and an in-memory Redis. No AppID, no server, no network.

The fakes share no code with `wxauth.wechat`: a misread rule of WeChat would otherwise be in both, and no test would
fail. This folder is imported only where the sandbox is switched on, and by `wxauth.testing`.
"""

from .app import extend, mark_as_sandbox
from .loopback import LoopbackOnly
from .services import SandboxServices

__all__ = ["LoopbackOnly", "SandboxServices", "extend", "mark_as_sandbox"]
