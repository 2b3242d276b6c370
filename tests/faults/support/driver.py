"""Load: threads that log in, check, list and log out over kept connections. Each call is logged."""

from __future__ import annotations

import dataclasses
import functools
import http.client
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.conftest import APPID
from tests.faults.support.history import Call
from tests.support.service import WeChatServer
from wxauth.keys import TAG_LENGTH

#: The weight of each operation.
MIX: Mapping[str, float] = {
    "check": 65,
    "login": 12,
    "logout": 7,
    "list": 6,
    "verify": 5,
    "relogin": 2,
    "others": 1,
    "everywhere": 1,
    "forged": 1,
    "ended": 5,
}
CHECKS: Mapping[str, float] = {"check": 1}

ROUTES = {
    "check": ("GET", "/session"),
    "list": ("GET", "/sessions"),
    "verify": ("GET", "/verify"),
    "logout": ("DELETE", "/session"),
    "everywhere": ("DELETE", "/sessions"),
    "others": ("DELETE", "/sessions?keep=current"),
}
#: A witness never does these. After a 503 to one of them, a refusal of the token would not count.
ENDS = ("logout", "relogin", "everywhere", "others")
#: How many of the newest ended tokens of a person are checked again.
REMEMBERED = 20
BODY_LENGTH = TAG_LENGTH + 43
FORGED_SIGNATURE = f".{'A' * 43}"
#: The server may close a connection that was idle for longer.
IDLE = 5.0


@dataclass
class Person:
    """A user. A nonce in the name keeps the openids of two runs apart.

    `tokens` are live, `ended` are logged out or may be. A `witness` never logs out.
    """

    name: str
    openid: str
    witness: bool
    tokens: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Caller:
    """One kept connection. Each call goes to the log."""

    def __init__(
        self, base_url: str, wechat: WeChatServer, log: Callable[[Call], None], timeout: float = 5.0
    ) -> None:
        self._address = urlsplit(base_url).netloc
        self._wechat = wechat
        self._log = log
        self._timeout = timeout
        self._connection = http.client.HTTPConnection(self._address, timeout=timeout)
        self._used_at = 0.0

    def close(self) -> None:
        self._connection.close()

    def log_in(self, person: Person, replaced: str | None = None) -> Call:
        """Log in, and add the new token to `person.tokens`. `replaced` is the token to send along."""
        code = self._wechat.fake.wx_login(person.name)
        body = json.dumps({"code": code})
        call, answer = self._call("login", "POST", "/login", person, replaced, body)
        token = answer.get("token") if call.status == 200 else None
        call = dataclasses.replace(call, token_id=token, ended=replaced)
        self._log(call)
        if token:
            with person.lock:
                person.tokens.append(token)
        return call

    def ask(self, operation: str, person: Person, token: str) -> Call:
        """Send an operation of ROUTES as `person` with `token`."""
        call, answer = self._call(operation, *ROUTES[operation], person, token)
        openid = answer.get("openid") or call.headers.get("x-wx-openid")
        call = dataclasses.replace(call, token_id=token, openid=openid)
        self._log(call)
        return call

    def _call(
        self, operation: str, method: str, path: str, person: Person, token: str | None, body: str | None = None
    ) -> tuple[Call, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        start = time.monotonic()
        if start - self._used_at > IDLE:
            self._connection.close()
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Call(start, time.monotonic(), operation, person.openid, failure=repr(error)), {}
        self._used_at = end = time.monotonic()
        answer = _object(text)
        found = {name.lower(): value for name, value in response.getheaders()}
        problem = {name: answer.get(name) for name in ("code", "action", "request_id")}
        call = Call(start, end, operation, person.openid, status=response.status, headers=found, **problem)
        return call, answer


class Load:
    """`threads` callers at once, in a `with` block or for `run(count)` calls. The log is `calls`.

    `rate` is the maximum of calls a second, all threads together. `seed` makes the random choices repeatable.
    """

    def __init__(
        self,
        base_url: str,
        wechat: WeChatServer,
        *,
        seed: int,
        threads: int = 8,
        users: int = 24,
        mix: Mapping[str, float] = MIX,
        rate: float | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.calls: list[Call] = []
        nonce = secrets.token_hex(4)
        self.people = [self._person(wechat, f"{nonce}-{number}", number % 2 == 1) for number in range(users)]
        self.mix = mix
        #: Make another caller with the same log.
        self.caller = functools.partial(Caller, base_url, wechat, self.calls.append, timeout)
        self._seed = seed
        self._pause = threads / rate if rate else 0.0
        self._left: int | None = None
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._drive, args=(number,)) for number in range(threads)]

    def log_in_all(self, times: int = 1) -> None:
        """Log each person in, `times` times."""
        caller = self.caller()
        for person in self.people * times:
            caller.log_in(person)
        caller.close()

    def check_all(self, pause: float = 0.0) -> list[Call]:
        """Check each token of the log once, live or ended."""
        caller = self.caller()
        by_openid = {person.openid: person for person in self.people}
        given = [call for call in self.calls if call.operation == "login" and call.token_id]
        asked = []
        for call in given:
            asked.append(caller.ask("check", by_openid[call.user], call.token_id or ""))
            time.sleep(pause)
        caller.close()
        return asked

    def run(self, count: int) -> None:
        """Make `count` calls."""
        self._left = count
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _drive(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")  # noqa: S311 - repeatable
        caller = self.caller()
        while not self._stopped.is_set() and self._may_go_on():
            (operation,) = chance.choices(list(self.mix), list(self.mix.values()))
            self._act(caller, operation, chance.choice(self.people), chance)
            if self._pause:
                self._stopped.wait(self._pause * chance.uniform(0.5, 1.5))
        caller.close()

    def _may_go_on(self) -> bool:
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    def _act(self, caller: Caller, operation: str, person: Person, chance: random.Random) -> None:
        if operation == "forged":
            # At /verify the token reaches the cache first.
            token = f"wxa_{''.join(chance.choices('abcdefgh', k=BODY_LENGTH))}{FORGED_SIGNATURE}"
            caller.ask(chance.choice(("check", "verify")), person, token)
        elif operation == "ended":
            if person.ended:
                caller.ask("check", person, chance.choice(person.ended[-REMEMBERED:]))
        elif person.witness and operation in ENDS:
            self._act_as(caller, "check", person, chance)
        else:
            self._act_as(caller, operation, person, chance)

    def _act_as(self, caller: Caller, operation: str, person: Person, chance: random.Random) -> None:
        ends = operation in ("logout", "relogin")
        presented = self._token(person, chance, ends)
        if operation == "login" or presented is None:
            caller.log_in(person)
        elif operation == "relogin":
            if caller.log_in(person, presented).unknown:
                self._keep(person, presented)
        else:
            if operation == "everywhere":
                self._forget(person)
            call = caller.ask(operation, person, presented)
            if operation == "others":
                self._forget(person, presented)
            elif operation == "logout" and call.unknown:
                self._keep(person, presented)

    @staticmethod
    def _token(person: Person, chance: random.Random, take: bool) -> str | None:
        with person.lock:
            if not person.tokens:
                return None
            place = chance.randrange(len(person.tokens))
            if take:
                person.ended.append(person.tokens[place])
            return person.tokens.pop(place) if take else person.tokens[place]

    @staticmethod
    def _keep(person: Person, token: str) -> None:
        with person.lock:
            person.tokens.append(token)

    @staticmethod
    def _forget(person: Person, kept: str | None = None) -> None:
        with person.lock:
            person.ended += [token for token in person.tokens if token != kept]
            person.tokens[:] = [token for token in person.tokens if token == kept]

    @staticmethod
    def _person(wechat: WeChatServer, name: str, witness: bool) -> Person:
        return Person(name, str(wechat.fake._identity(APPID, name)["openid"]), witness)


def is_forged(call: Call) -> bool:
    """Return whether the load made the token up."""
    return (call.token_id or "").endswith(FORGED_SIGNATURE)


def milliseconds(calls: list[Call], percentile: float) -> float:
    """Return the percentile of the durations in ms."""
    took = sorted(call.end - call.start for call in calls)
    return round(took[min(int(len(took) * percentile / 100), len(took) - 1)] * 1000, 1) if took else 0.0


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
