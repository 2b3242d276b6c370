"""Use the client of openapi-python-client: `openapi_python_client.py URL CODE ID SECRET` prints the answers."""

import base64
import json
import sys

from wxauth_client import AuthenticatedClient, Client
from wxauth_client.api.backends import introspect, verify
from wxauth_client.api.login import log_in, log_out, show_session
from wxauth_client.models import Login, TokenForm

url, code, id, secret = sys.argv[1:]
token = log_in.sync(client=Client(url), body=Login(code=code)).token
phone = AuthenticatedClient(url, token)
# The generator knows one header of credentials, and not Basic's encoding.
backend = AuthenticatedClient(url, base64.b64encode(f"{id}:{secret}".encode()).decode(), prefix="Basic")

found = {
    "session": show_session.sync(client=phone).openid,
    "verify": verify.sync_detailed(client=phone).headers["X-WX-OpenID"],
    "alive": introspect.sync(client=backend, body=TokenForm(token)).to_dict(),
}
log_out.sync_detailed(client=phone)
found["ended"] = introspect.sync(client=backend, body=TokenForm(token)).to_dict()
refused = show_session.sync_detailed(client=phone)
found["problem"] = [refused.status_code, refused.parsed.code, refused.parsed.action]
sys.stdout.write(json.dumps(found))
