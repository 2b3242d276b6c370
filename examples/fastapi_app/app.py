"""A FastAPI application: it asks /verify for the user of a token. docs/other-backends.md says what it must answer.

pip install fastapi uvicorn httpx
WXAUTH_URL=http://127.0.0.1:8000 uvicorn app:app --port 9000
"""

import asyncio
import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

app = FastAPI()
service = httpx.AsyncClient(base_url=os.environ["WXAUTH_URL"], trust_env=False)  # HTTP_PROXY must not get the token
APPID = os.environ.get("WXAUTH_APPID", "")  # set it if the service has several mini programs


class Problem(BaseModel):
    code: str
    action: str
    detail: str = ""


async def current_openid(authorization: Annotated[str, Header()] = "") -> str:
    """Return the openid of the user. Raises HTTPException if the token is refused or can't be checked."""
    try:
        async with asyncio.timeout(2):
            answer = await service.get("/verify", headers={"Authorization": authorization.encode("latin-1")})
        openid, challenge = (answer.headers.get(name, "") for name in ("X-WX-OpenID", "WWW-Authenticate"))
        if answer.status_code == 204 and openid and "," not in openid:  # a header that is there twice has a comma
            if APPID in ("", answer.headers.get("X-WX-AppID")):
                return openid
            raise HTTPException(401, {"code": "other_appid", "action": "none"}, {"WWW-Authenticate": "Bearer"})
        is_problem = answer.headers.get("Content-Type") == "application/problem+json" and challenge.isascii()
        if answer.status_code in (401, 403) and is_problem:
            problem = Problem.model_validate_json(answer.content).model_dump()
            raise HTTPException(answer.status_code, problem, {"WWW-Authenticate": challenge} if challenge else None)
    except (httpx.HTTPError, TimeoutError, ValueError):
        pass
    # The token can't be checked now. Answer 503, so that the client retries and does not log in again.
    raise HTTPException(503, {"code": "auth_unavailable", "action": "retry"}, {"Retry-After": "1"})


@app.get("/orders")
async def orders(openid: Annotated[str, Depends(current_openid)]):
    return {"openid": openid, "orders": []}
