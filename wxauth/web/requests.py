"""Read a request: its JSON or form, its token, its client credential, its address. Malformed input is refused."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, unquote_plus
from wsgiref.types import WSGIEnvironment

from flask import request
from werkzeug.datastructures import Authorization, MultiDict

from .. import strict_json
from ..errors import (
    BadRequest,
    ClientUnauthorized,
    ConflictingClients,
    CrossSiteRequest,
    TokenMissing,
    TooLarge,
    UnsupportedMediaType,
)
from ..metrics import CLIENT_FAILURES
from ..models import Secret
from ..settings import Client

MAX_BODY: Final = 16 * 1024
MAX_FIELDS: Final = 10
FORM: Final = "application/x-www-form-urlencoded"

MAX_LABEL: Final = 64
#: Control characters, line separators, changes of the writing direction, and surrogates, which UTF-8 cannot encode.
CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

ANY: Final = re.compile(r".*", re.DOTALL)
PRINTABLE: Final = re.compile(r"[ -~]+")
#: WeChat documents no format of its codes: refuse only what cannot be a code.
CODE: Final = re.compile(r"[!-~]{1,128}")
#: A search is cheaper than parsing a long query.
TOKEN_IN_QUERY: Final = re.compile(r"(^|&)access_token=|wxa_[A-Za-z0-9_-]{40}")
BASIC: Final = re.compile(r"basic( |$)", re.IGNORECASE)
#: An unknown id is compared with this client, so that it takes as long as a known one.
DUMMY_CLIENT: Final = Client(Secret(""), frozenset())
#: Some proxies add the port to the addresses in X-Forwarded-For. A scope id has a meaning on its own machine only.
ADDRESS: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::[0-9]+)?|([0-9a-f:.]+)", re.IGNORECASE)
MAX_ADDRESS: Final = 64
UNKNOWN: Final = "unknown"


def json_object() -> dict[str, Any]:
    """Return the body as a JSON object. Raises BadRequest or UnsupportedMediaType."""
    if not request.is_json or request.content_encoding:
        raise UnsupportedMediaType("Send plain, uncompressed JSON, with Content-Type: application/json.")
    try:
        return strict_json.parse(raw_body())
    except ValueError:
        raise BadRequest("The body must be one JSON object without duplicate names.") from None


def form() -> MultiDict[str, str]:
    """Return the form. Raises BadRequest or UnsupportedMediaType."""
    if request.mimetype != FORM or request.content_encoding:
        raise UnsupportedMediaType(f"Send a form, with Content-Type: {FORM}.")
    raw_body()
    if sum(map(len, request.form.listvalues())) > MAX_FIELDS:
        raise BadRequest(f"Send at most {MAX_FIELDS} fields.")
    return request.form


def form_field(name: str) -> str:
    """Return the value of a form field that must be there once. Raises the errors of `form`."""
    values = form().getlist(name)
    if len(values) != 1:
        raise BadRequest(f"Send {name} exactly once.")
    return values[0]


def given_values(fields: MultiDict[str, str], name: str) -> list[str]:
    """Return the values of a form field. One without a value counts as absent (RFC 6749, 3.2)."""
    return [value for value in fields.getlist(name) if value]


def raw_body() -> bytes:
    """Return the body as bytes. Raises TooLarge, or BadRequest if the connection ended before the body did."""
    raw = request.get_data()
    if max(len(raw), request.content_length or 0) > MAX_BODY:
        # A hook of the application has read it, before the limit of this route was set.
        raise TooLarge
    if request.content_length is not None and len(raw) < request.content_length:
        raise BadRequest("The body is shorter than its Content-Length.")
    return raw


def text(found: dict[str, Any], name: str, max_length: int) -> str | None:
    """Return the member `name`, 1 to `max_length` printable characters, or None. Raises BadRequest."""
    value = found.get(name)
    if value is None or (isinstance(value, str) and 1 <= len(value) <= max_length and value.isprintable()):
        return value
    raise BadRequest(f"{name} must be a string of 1 to {max_length} printable characters.")


def required_str(found: dict[str, Any], name: str, form: re.Pattern[str] = ANY) -> str:
    """Return the member `name`, a string of this form. Raises BadRequest."""
    value = found.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise BadRequest(f"{name} is missing or has the wrong form.")
    return value


def label(value: object) -> str | None:
    """Return the text of a label: without controls, cut to MAX_LABEL characters. None if nothing is left."""
    return (CONTROLS.sub("", value)[:MAX_LABEL] or None) if isinstance(value, str) else None


def bearer_token(environ: WSGIEnvironment) -> str:
    """Return the token of the Authorization header of a request.

    Raises TokenMissing, or BadRequest if the query string contains a token: logs of every proxy would keep it.
    """
    query = environ.get("QUERY_STRING", "")
    if query and TOKEN_IN_QUERY.search(unquote(query)):
        raise BadRequest("Send the token in the Authorization header, not in the query string.")
    return token_from_header(environ.get("HTTP_AUTHORIZATION", ""))


def token_from_header(authorization: str) -> str:
    """Return the token of `Bearer <token>` or of a bare `<token>`. Raises TokenMissing if the header is empty."""
    if not authorization:
        raise TokenMissing
    scheme, space, token = authorization.partition(" ")
    return token.lstrip(" ") if space and scheme.lower() == "bearer" else authorization


def authenticate_client(clients: Mapping[str, Client], public: Mapping[str, Client] | None = None) -> Client:
    """Return the client of the id and secret in HTTP Basic, in the form, or in both (RFC 6749, 2.3.1).

    One of the `public` clients has no secret, and sends its id in the form. Raises ClientUnauthorized,
    ConflictingClients, or the errors of `form`.
    """
    basic = _basic_credential(request.headers.get("Authorization", ""))
    fields = form() if request.mimetype == FORM else MultiDict[str, str]()
    ids = {*([basic[0]] if basic else []), *given_values(fields, "client_id")}
    if len(ids) > 1:
        raise ConflictingClients
    secrets = [*([basic[1]] if basic else []), *([text] for text in given_values(fields, "client_secret"))]
    id = next(iter(ids), "")
    client = _proven_client(id, secrets, clients) if secrets else (public or {}).get(id)
    if client is None:
        CLIENT_FAILURES.labels("wrong" if secrets else "missing").inc()
        raise ClientUnauthorized
    return client


def refuse_other_sites() -> None:
    """Raise CrossSiteRequest if a page of another site made a browser send this request with Basic credentials.

    A browser that knows them adds them to the requests of all sites (CSRF). Sec-Fetch-Site names the relation of the
    two sites. Browsers send it to secure origins only; elsewhere Origin comes with each request that may change
    something. No page can set either, and backends send neither. A link may lead here, because a GET changes nothing.
    """
    headers = request.headers
    is_link = request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
    if is_link or not BASIC.match(headers.get("Authorization", "")):
        return
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    is_own = origin is None or origin.partition("://")[2] == request.host
    # A proxy may change Host, so Sec-Fetch-Site decides if it is there.
    if not (site in ("same-origin", "none") if site else is_own):
        raise CrossSiteRequest


def find_client(authorization: str, clients: Mapping[str, Client]) -> Client | None:
    """Return the client with the id and secret of an Authorization header (HTTP Basic), or None."""
    basic = _basic_credential(authorization)
    return _proven_client(basic[0], [basic[1]], clients) if basic else None


def _basic_credential(authorization: str) -> tuple[str, list[str]] | None:
    """Return the id, and the secret as it is and form-decoded. None without the scheme Basic.

    No id has a character that form-decoding changes.
    """
    if not BASIC.match(authorization):
        return None
    # Werkzeug raises ValueError for text that is not ASCII.
    given = Authorization.from_header(authorization if authorization.isascii() else "")
    id, secret = (given.username or "", given.password or "") if given else ("", "")
    return unquote_plus(id), [secret, unquote_plus(secret)]


def _proven_client(id: str, secrets: list[list[str]], clients: Mapping[str, Client]) -> Client | None:
    """Return the client `id` if there are secrets, each in several readings, and one reading of each is right.

    All are compared, so that the time shows neither which is right nor whether the client exists.
    """
    client = clients.get(id, DUMMY_CLIENT)
    right = [sum(client.secret == Secret(reading) for reading in readings) for readings in secrets]
    return client if right and all(right) and client is not DUMMY_CLIENT else None


def client_network(address: str) -> str:
    """Return what counts as one caller: an IPv4 address, the /64 of an IPv6 address, or UNKNOWN."""
    return _network(address) if len(address) <= MAX_ADDRESS else UNKNOWN


def shown_network(address: str) -> str:
    """Return the network of an address, as a user is shown it: the /24 of IPv4, the /48 of IPv6, or UNKNOWN."""
    network = client_network(address)
    if network == UNKNOWN:
        return network
    shortened = ipaddress.ip_network(network).supernet(new_prefix=48 if ":" in network else 24)
    return str(shortened)


@functools.lru_cache(maxsize=4096)
def _network(address: str) -> str:
    found = ADDRESS.fullmatch(address)
    try:
        parsed = ipaddress.ip_address((found[1] or found[2] or found[3]) if found else "")
    except ValueError:
        return UNKNOWN
    if parsed.version == 6:
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
