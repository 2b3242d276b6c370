"""Log a user in on a server or in a terminal by a scan with the mini program (RFC 8628), here with Authlib.

pip install authlib requests
WXAUTH_URL=http://127.0.0.1:8000 WXAUTH_CLIENT=console:a-long-random-secret python scan_login.py

WXAUTH_CLIENT is one entry of the service's WXAUTH_CLIENTS, without its role.
"""

import os
import sys
import time

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
URL = os.environ["WXAUTH_URL"].rstrip("/")
CLIENT_ID, _, CLIENT_SECRET = os.environ["WXAUTH_CLIENT"].partition(":")


def request_code(session):
    """Ask for a code. Authlib has no function for it: send the form with the client's credential."""
    auth = session.client_auth(session.token_endpoint_auth_method)
    answer = session.post(f"{URL}/device_authorization", data={}, auth=auth)
    answer.raise_for_status()
    return answer.json()


def fetch_token(session, device_code, interval, expires_in):
    """Poll until the user has answered. Raises OAuthError if the user refused or the code has expired."""
    end = time.monotonic() + expires_in
    while time.monotonic() < end:
        time.sleep(interval)
        try:
            return session.fetch_token(f"{URL}/token", grant_type=GRANT, device_code=device_code)
        except OAuthError as error:
            if error.error not in ("authorization_pending", "slow_down", "rate_limited"):
                raise
            interval += 0 if error.error == "authorization_pending" else 5
        except requests.RequestException:
            interval *= 2  # no connection, or a 5xx: RFC 8628, section 3.5, asks for a backoff
    raise OAuthError("expired_token")


def main():
    session = OAuth2Session(CLIENT_ID, CLIENT_SECRET, default_timeout=10)
    session.trust_env = False  # HTTP_PROXY must not get the secret
    code = request_code(session)
    print(f"扫码登录：{code['qr_code']}\n登录码：{code['user_code']}", flush=True)
    try:
        fetch_token(session, code["device_code"], code["interval"], code["expires_in"])
    except OAuthError as error:
        sys.exit(f"登录失败：{error.error}")
    user = session.get(f"{URL}/session").json()  # Authlib sends the token
    print(f"登录成功：{user['openid']}")


if __name__ == "__main__":
    main()
