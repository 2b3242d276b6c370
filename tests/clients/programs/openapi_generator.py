"""Use the client of openapi-generator: `openapi_generator.py URL CODE ID SECRET` prints what the service answered."""

import json
import sys

from wxauth_client import ApiClient, ApiException, BackendsApi, Configuration, Login, LoginApi

url, code, id, secret = sys.argv[1:]
token = LoginApi(ApiClient(Configuration(url))).log_in(Login(code=code)).token
phone = ApiClient(Configuration(url, access_token=token))
backend = BackendsApi(ApiClient(Configuration(url, username=id, password=secret)))

found = {
    "session": LoginApi(phone).show_session().openid,
    "verify": BackendsApi(phone).verify_with_http_info().headers["x-wx-openid"],
    "alive": backend.introspect(token).to_dict(),
}
LoginApi(phone).log_out()
found["ended"] = backend.introspect(token).to_dict()
try:
    LoginApi(phone).show_session()
except ApiException as error:
    found["problem"] = [error.status, error.data.code, error.data.action]
sys.stdout.write(json.dumps(found))
