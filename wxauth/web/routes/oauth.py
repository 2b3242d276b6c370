"""The routes of RFC 8628 for websites: ask for a device code, poll for the token, and the metadata of RFC 8414.

Errors have the JSON form of RFC 6749, 5.2. Without WXAUTH_PUBLIC_URL these routes are 404.
"""

from __future__ import annotations

from typing import Any, Final

from flask import request

from ...errors import BadRequest, UnsupportedGrantType, WxAuthError
from ...sessions.device_codes import INTERVAL, LIFE
from ...settings import Client
from ..actions import auth
from ..problems import STATUSES, from_http, handle_oauth
from ..requests import authenticate_client, form, form_field, given_values, raw_body, shown_network
from ..services import services
from . import RouteBlueprint
from .device import require_public_url

bp = RouteBlueprint("oauth", __name__)
bp.before_request(require_public_url)
bp.register_error_handler(WxAuthError, handle_oauth)
for status in STATUSES:
    bp.register_error_handler(status, lambda error: handle_oauth(from_http(error)))

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"


@bp.post("/device_authorization")
def authorize_device() -> dict[str, Any]:
    """RFC 8628, 3.1."""
    client = _client()
    if client.secret is None:
        services().rate_limits.check_public_client()
    appid = _appid(client)
    code, user_code = services().device_codes.request(client.id, appid, shown_network(request.remote_addr or ""))
    shown = f"{user_code[:4]}-{user_code[4:]}"
    address = f"{services().settings.public_url}/device"
    return {
        "device_code": code.reveal(),
        "user_code": shown,
        "verification_uri": address,
        "verification_uri_complete": f"{address}?user_code={shown}",
        "expires_in": LIFE,
        "interval": INTERVAL,
        "qr_code": f"{address}/{shown}.png",
    }


@bp.post("/token")
def issue_token() -> tuple[dict[str, Any], dict[str, str]]:
    """RFC 8628, 3.4."""
    client = _client()
    if form_field("grant_type") != GRANT_TYPE:
        raise UnsupportedGrantType
    token, session = auth.log_in_by_scan(form_field("device_code"), client.id)
    # RFC 6749, 5.1 asks for this header of HTTP/1.0 too.
    headers = {"Pragma": "no-cache"}
    return {"access_token": token.reveal(), "token_type": "Bearer", "expires_in": session.expires_in}, headers


@bp.get("/.well-known/oauth-authorization-server")
def metadata() -> dict[str, Any]:
    """RFC 8414."""
    settings = services().settings
    secret = ["client_secret_basic", "client_secret_post"]
    methods = [*(secret if settings.clients else []), *(["none"] if settings.public_clients else [])]
    return {
        "issuer": settings.public_url,
        "device_authorization_endpoint": f"{settings.public_url}/device_authorization",
        "token_endpoint": f"{settings.public_url}/token",
        "introspection_endpoint": f"{settings.public_url}/introspect",
        "revocation_endpoint": f"{settings.public_url}/revoke",
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "response_types_supported": [],
        "grant_types_supported": [GRANT_TYPE],
    }


def _client() -> Client:
    services().rate_limits.check_client()
    settings = services().settings
    return authenticate_client(settings.clients, settings.public_clients)


def _appid(client: Client) -> str:
    """Return the app of the user who may approve. A body is a form, or empty. Raises RequestError."""
    asked = given_values(form(), "appid") if raw_body() else []
    if len(asked) > 1:
        raise BadRequest("Send appid once.")
    appid = auth.known_appid(asked[0] if asked else next(iter(client.appids or ()), None))
    if not client.may_see(appid):
        raise BadRequest("This client may not use this app.")
    return appid
