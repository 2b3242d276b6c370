"""A FastAPI application: it asks /verify for the user of a token. docs/other-backends.md says what it must answer.

pip install fastapi uvicorn httpx
WXAUTH_URL=http://127.0.0.1:8000 uvicorn app:app --port 9000
"""

import asyncio
import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException

app = FastAPI()
service = httpx.AsyncClient(base_url=os.environ["WXAUTH_URL"])


async def current_openid(authorization: Annotated[str, Header()] = "") -> str:
    """Return the openid of the user. Raises HTTPException with the problem of the service if the token is refused."""
    try:
        async with asyncio.timeout(2):
            answer = await service.get("/verify", headers={"Authorization": authorization.encode("latin-1")})
    except (httpx.HTTPError, TimeoutError) as error:
        raise unavailable() from error
    if answer.status_code == 204 and answer.headers.get("X-WX-OpenID"):
        return answer.headers["X-WX-OpenID"]
    if answer.status_code in (401, 403) and answer.headers.get("Content-Type") == "application/problem+json":
        challenge = answer.headers.get("WWW-Authenticate")
        raise HTTPException(answer.status_code, answer.json(), {"WWW-Authenticate": challenge} if challenge else None)
    raise unavailable()


def unavailable() -> HTTPException:
    """The token can't be checked now. The answer is 503, so that the client retries and does not log in again."""
    return HTTPException(503, {"code": "auth_unavailable", "action": "retry"}, {"Retry-After": "1"})


@app.get("/orders")
async def orders(openid: Annotated[str, Depends(current_openid)]):
    return {"openid": openid, "orders": []}
