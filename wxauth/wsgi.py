"""The application that a WSGI server loads: the service, or the sandbox with WXAUTH_SANDBOX=1."""

from __future__ import annotations

import os
import sys

from . import logs
from .errors import ConfigurationError
from .settings import Settings
from .web.app import create_app

try:
    settings = Settings.from_env(os.environ)
except ConfigurationError as error:
    sys.exit(str(error))

settings.remove_secrets(os.environ)
logs.configure(settings.log_level)

app = create_app(settings)
