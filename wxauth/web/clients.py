"""Which of the operator's other backends an `Authorization` shows (HTTP Basic). Knows no request and no route."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from ..errors import ClientUnauthorized
from ..models import Secret
from ..settings import Client

#: What an unknown id is compared with, so that it takes as long as a known one.
DUMMY_CLIENT: Final = Client(Secret(""), frozenset())


def authenticate_client(authorization: str, clients: Mapping[str, Client]) -> Client:
    """The client whose id and secret these are, or ClientUnauthorized."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise ClientUnauthorized from None
    client = clients.get(id, DUMMY_CLIENT)
    if not (scheme.lower() == "basic" and client.secret == Secret(secret) and client is not DUMMY_CLIENT):
        raise ClientUnauthorized
    return client
