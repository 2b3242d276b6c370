"""An adapter around the fake WeChat that records each exchange in the trace."""

from __future__ import annotations

import io
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from .trace import Note, Trace, end_note, http_size, mask, pretty, start_note


class WatchedWeChat(HTTPAdapter):
    """Forwards requests to `wechat`, and records request and answer."""

    def __init__(self, wechat: HTTPAdapter, trace: Trace) -> None:
        super().__init__()
        self._wechat = wechat
        self._trace = trace

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        note = start_note("wechat")
        try:
            note["request"] = _request(request)
            response = self._wechat.send(request, *args, **kwargs)
            body = response.raw.read()
            note["answer"] = _answer(response, body)
        except requests.Timeout:
            note["error"] = "no answer in time"
            raise
        finally:
            end_note(note)
            self._trace.add(note)
        raw = urllib3.HTTPResponse(
            io.BytesIO(body), response.headers, status=response.status_code, preload_content=False
        )
        return self.build_response(request, raw)


def _request(request: requests.PreparedRequest) -> Note:
    parts = urlsplit(str(request.url))
    target = f"{parts.path}?{parts.query}"
    headers = {"Host": str(parts.netloc), **request.headers}
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    return {
        "line": f"{request.method} {mask(target)}",
        "headers": headers,
        "body": pretty(body),
        "bytes": http_size(f"{request.method} {target} HTTP/1.1\r\n", headers, body),
    }


def _answer(response: requests.Response, body: bytes) -> Note:
    headers = dict(response.headers)
    line = f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    return {
        "line": line,
        "headers": headers,
        "body": pretty(body),
        "bytes": http_size(f"HTTP/1.1 {line}\r\n", headers, body),
    }
