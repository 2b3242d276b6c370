"""A Flask application that Authlib guards: `authlib_resource.py URL TOKEN ID SECRET` prints its answers.

It asks /introspect, revokes the token, and asks again.
"""

import json
import sys

from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from flask import Flask

url, token, id, secret = sys.argv[1:]
backend = OAuth2Session(id, secret)


class Validator(IntrospectTokenValidator):  # type: ignore[misc]  # Authlib is not typed
    def introspect_token(self, token_string: str) -> dict[str, str]:
        answer: dict[str, str] = backend.introspect_token(f"{url}/introspect", token=token_string).json()
        return answer


app = Flask(__name__)
require_oauth = ResourceProtector()
require_oauth.register_token_validator(Validator())


@app.get("/orders")
@require_oauth()  # type: ignore[untyped-decorator]
def orders() -> dict[str, str]:
    return {"sub": current_token["sub"]}


client, headers = app.test_client(), {"Authorization": f"Bearer {token}"}
alive = client.get("/orders", headers=headers)
revoked = backend.revoke_token(f"{url}/revoke", token=token)
ended = client.get("/orders", headers=headers)
found = {"sub": alive.json and alive.json["sub"], "revoked": revoked.status_code, "active": ended.status_code == 200}
sys.stdout.write(json.dumps(found))
