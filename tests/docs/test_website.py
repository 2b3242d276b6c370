"""Test examples/website/wxauth-web.js in a real browser, on another origin than the service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests

from tests.support.browser import Browser
from tests.support.servers import RedisServer, Server, free_port, wait_until
from tests.support.service import ROOT, Service, WeChatServer, environment
from tests.support.website import CODES, Login, ScriptedService, Website

FOLDER = ROOT / "examples" / "website"
CLIENT = FOLDER / "wxauth-web.js"
TOKEN = {"access_token": "wxa_token", "token_type": "Bearer", "expires_in": 604800}
LOGGED_IN = {"token": "wxa_token", "token_type": "Bearer", "expires_in": 604800}

#: A page without login. Its clock is SPEED times as fast, and `pauses` has the milliseconds of each timer.
PAGE = """
<!doctype html>
<title>A page of the tests</title>
<div id="login"></div>
<script>
  const pauses = []
  const realTimeout = window.setTimeout
  window.setTimeout = (work, ms) => { pauses.push(ms); return realTimeout(work, ms / SPEED) }
</script>
<script type="module">
  import * as client from './wxauth-web.js'
  const element = document.querySelector('#login')
  let control
  const follow = promise => {
    window.outcome = null
    promise.then(value => { window.outcome = { value } }, error => {
      window.outcome = { code: error.code ?? error.name ?? String(error), message: error.message ?? '' }
    })
  }
  window.scan = (baseURL, more) => {
    control = new AbortController()
    follow(client.scanLogin({ baseURL, clientId: 'console', element, signal: control.signal, ...more }))
  }
  window.abort = reason => control.abort(reason)
  window.ticket = (baseURL, more) => follow(client.ticketLogin({ baseURL, ...more }))
  window.isReady = true
</script>
"""


class Page:
    """The page of the tests in a browser, and the service that it asks."""

    def __init__(self, browser: Browser, service: Any, site: Website) -> None:
        self.browser, self.service, self.site, self.url = browser, service, site, site.url

    def open(self, fragment: str = "") -> None:
        self.browser.driver.get("about:blank")  # or another fragment would not load the page again
        self.browser.driver.get(f"{self.url}/test.html{fragment}")
        wait_until(lambda: bool(self.browser.run("return window.isReady")), "the page")

    def scan(self, **more: Any) -> None:
        self.browser.run("scan(...arguments)", self.service.url, more)

    def outcome(self) -> dict[str, Any]:
        """Wait for the end of the login, and return its value or its error."""
        wait_until(lambda: self.browser.run("return window.outcome") is not None, "the end of the login")
        found: dict[str, Any] = self.browser.run("return window.outcome")
        return found

    def await_requests(self, path: str, number: int) -> None:
        wait_until(lambda: len(self.service.asked(path)) >= number, f"{number} requests to {path}")

    def codes(self) -> list[str]:
        """Return the codes that are shown. A script, unlike selenium, sees no element that was replaced meanwhile."""
        script = "return [...document.querySelectorAll('#login p')].map(it => it.textContent)"
        found: list[str] = self.browser.run(script)
        return found

    def pauses(self) -> list[float]:
        """Return the pauses between the polls, in seconds."""
        return [ms / 1000 for ms in self.browser.run("return pauses")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("website")
    shutil.copy(CLIENT, folder)
    (folder / "test.html").write_text(PAGE.replace("SPEED", "50"))
    with ScriptedService() as service, Website(folder) as website, Browser(website.url) as browser:
        yield Page(browser, service, website)


@pytest.fixture
def page(shared: Page) -> Page:
    shared.browser.driver.get("about:blank")  # the page of the last test sends nothing more
    shared.service.reset()
    shared.open()
    return shared


# --- The code on the page


def test_scan_shows_the_image_and_the_code(page: Page) -> None:
    page.scan()
    wait_until(lambda: page.codes() == [CODES[0]], "the code")
    image = "document.querySelector('#login img')"
    wait_until(lambda: page.browser.run(f"return {image}.naturalWidth") == 1, "the image")
    assert page.browser.run(f"return [{image}.src, {image}.alt]") == [
        f"{page.service.url}/device/{CODES[0]}.png",
        "微信扫码登录",
    ]


def test_scan_shows_a_code_with_markup_as_text(page: Page) -> None:
    markup = "<img src=x onerror='window.isHacked = true'>"
    code = {"device_code": "d", "user_code": markup, "qr_code": "javascript:window.isHacked=true", "interval": 2}
    page.service.say("/device_authorization", 200, code | {"expires_in": 300})
    page.scan(alt=markup)
    wait_until(lambda: page.codes() == [markup], "the code")
    assert page.outcome()["code"] == "unavailable"
    assert page.browser.run("return window.isHacked ?? null") is None


def test_scan_loads_the_image_again_after_an_error(page: Page) -> None:
    path = f"/device/{CODES[0]}.png"
    page.service.say(path, 503, {})
    page.scan()
    wait_until(lambda: page.browser.run("return document.images[0]?.naturalWidth") == 1, "the image")
    assert len(page.service.asked(path)) == 2


def test_scan_rejects_if_the_image_does_not_load(page: Page) -> None:
    """The user has nothing to scan, so there is nothing to poll for."""
    path = f"/device/{CODES[0]}.png"
    for _ in range(3):
        page.service.say(path, 503, {})
    page.scan()
    assert page.outcome() == {
        "code": "unavailable",
        "message": f"unavailable: No image from {page.service.url}{path}",
    }
    assert len(page.service.asked(path)) == 3
    assert page.service.asked("/token") == []


# --- The polls


def test_approved_scan_gives_the_token_and_removes_the_code(page: Page) -> None:
    page.service.say("/token", 400, {"error": "authorization_pending"})
    page.service.say("/token", 200, TOKEN)
    page.scan()
    assert page.outcome() == {"value": TOKEN}
    assert page.browser.run("return document.querySelector('#login').childElementCount") == 0
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    form = {"client_id": "console", "grant_type": grant, "device_code": "device-code-1"}
    assert page.service.asked("/token") == [form, form]
    assert page.service.asked("/device_authorization") == [{"client_id": "console"}]


def test_code_that_ended_while_the_service_did_not_answer_is_renewed(page: Page) -> None:
    code = {"device_code": "d", "user_code": "x", "qr_code": f"{page.service.url}/device/x.png", "interval": 2}
    page.service.say("/device_authorization", 200, code | {"expires_in": 0})
    page.service.say("/token", 502, b"<html>")
    page.service.say("/token", 200, TOKEN)
    page.scan()
    assert page.outcome() == {"value": TOKEN}
    assert [form["device_code"] for form in page.service.asked("/token")] == ["d", "device-code-2"]


def test_scan_names_the_mini_program_if_the_page_does(page: Page) -> None:
    page.scan(appid="wx0123456789abcdef")
    page.await_requests("/device_authorization", 1)
    assert page.service.asked("/device_authorization") == [{"client_id": "console", "appid": "wx0123456789abcdef"}]


def test_scan_polls_at_the_given_interval_and_5_s_slower_after_slow_down(page: Page) -> None:
    for error in ("authorization_pending", "slow_down", "authorization_pending", "slow_down"):
        page.service.say("/token", 400, {"error": error})
    page.service.say("/token", 200, TOKEN)
    page.scan()
    page.outcome()
    assert page.pauses() == [2, 2, 7, 7, 12]


def test_denied_scan_rejects_with_access_denied_and_removes_the_code(page: Page) -> None:
    page.service.say("/token", 400, {"error": "access_denied", "error_description": "The user said no"})
    page.scan()
    assert page.outcome() == {"code": "access_denied", "message": "access_denied: The user said no"}
    assert page.browser.run("return document.querySelector('#login').childElementCount") == 0
    assert len(page.service.asked("/token")) == 1


@pytest.mark.parametrize("error", ["expired_token", "invalid_grant"])
def test_code_that_has_ended_is_renewed(error: str, page: Page) -> None:
    """The polls go on with the new code, at the interval of the new code."""
    page.service.say("/token", 400, {"error": "slow_down"})
    page.service.say("/token", 400, {"error": error})
    page.scan()
    wait_until(lambda: page.codes() == [CODES[1]], "the second code")
    page.await_requests("/token", 3)
    page.service.say("/token", 200, TOKEN)
    assert page.outcome() == {"value": TOKEN}
    assert [form["device_code"][-1] for form in page.service.asked("/token")][:3] == ["1", "1", "2"]
    assert page.pauses()[:3] == [2, 7, 2]


def hide(page: Page) -> None:
    page.browser.driver.minimize_window()
    wait_until(lambda: bool(page.browser.run("return document.hidden")), "the hidden page")


def reveal(page: Page) -> None:
    page.browser.driver.set_window_rect(0, 0, 1000, 800)
    wait_until(lambda: not page.browser.run("return document.hidden"), "the visible page")


@pytest.fixture
def hidden(page: Page) -> Iterator[Page]:
    """The page, hidden after its second poll. The poll that may be under way has ended."""
    page.scan()
    page.await_requests("/token", 2)
    hide(page)
    time.sleep(1.5)
    yield page
    reveal(page)


def test_hidden_page_does_not_poll_and_goes_on_when_it_is_visible(hidden: Page) -> None:
    """A browser runs the timers of a hidden page once in a second, which is 50 s of the page's clock."""
    polls = len(hidden.service.asked("/token"))
    time.sleep(3)
    assert len(hidden.service.asked("/token")) == polls
    hidden.service.say("/token", 200, TOKEN)
    reveal(hidden)
    assert hidden.outcome() == {"value": TOKEN}


def test_hidden_page_asks_for_no_code(page: Page) -> None:
    hide(page)
    page.scan()
    time.sleep(1.5)
    assert page.service.requests == []
    reveal(page)
    page.await_requests("/device_authorization", 1)


def test_hidden_page_can_be_aborted(hidden: Page) -> None:
    hidden.browser.run("abort('left')")
    assert hidden.outcome()["code"] == "left"


def test_aborted_scan_rejects_with_the_reason_and_sends_no_more(page: Page) -> None:
    page.scan()
    page.await_requests("/token", 1)
    page.browser.run("abort('left')")
    assert page.outcome()["code"] == "left"
    assert page.browser.run("return document.querySelector('#login').childElementCount") == 0
    time.sleep(0.5)
    polls = len(page.service.asked("/token"))
    time.sleep(0.5)
    assert len(page.service.asked("/token")) == polls


def test_scan_that_is_aborted_before_its_code_comes_does_not_show_it(page: Page) -> None:
    aborted = Event()
    code = {"device_code": "d", "user_code": "x", "qr_code": "", "interval": 2, "expires_in": 300}
    page.service.say("/device_authorization", 200, lambda: aborted.wait(20) and code)
    page.scan()
    page.await_requests("/device_authorization", 1)
    page.browser.run("abort('left')")
    assert page.outcome()["code"] == "left"
    aborted.set()
    time.sleep(0.5)
    assert page.codes() == []


def test_scan_that_is_aborted_before_it_begins_sends_nothing(page: Page) -> None:
    script = "const signal = AbortSignal.abort('too late'); scan(arguments[0], { signal })"
    page.browser.run(script, page.service.url)
    assert page.outcome()["code"] == "too late"
    assert page.service.requests == []


# --- A service that does not answer


def test_poll_without_an_answer_is_repeated_more_slowly(page: Page) -> None:
    """RFC 8628, section 3.5, asks for an exponential backoff. The first answer ends it."""
    for _ in range(5):
        page.service.say("/token", 502, b"<html>")
    page.service.say("/token", 400, {"error": "authorization_pending"})
    page.service.say("/token", 200, TOKEN)
    page.scan()
    assert page.outcome() == {"value": TOKEN}
    assert page.pauses() == [2, 4, 8, 16, 30, 30, 2]


@pytest.mark.parametrize("status", [429, 503])
def test_poll_waits_as_long_as_the_service_says(status: int, page: Page) -> None:
    page.service.say("/token", status, {"error": "temporarily_unavailable"}, Retry_After="40")
    page.service.say("/token", 200, TOKEN)
    page.scan()
    assert page.outcome() == {"value": TOKEN}
    assert page.pauses() == [2, 40]


def test_first_request_without_an_answer_is_repeated_twice(page: Page) -> None:
    page.browser.run("scan('http://127.0.0.1:1')")
    found = page.outcome()
    assert found["code"] == "unavailable"
    assert f"add {page.url} to WXAUTH_CORS_ORIGINS" in found["message"]
    assert page.pauses() == [2, 2]


def test_first_request_is_repeated_after_the_wait_that_the_service_asks_for(page: Page) -> None:
    page.service.say("/device_authorization", 503, {"error": "temporarily_unavailable"}, Retry_After="5")
    page.scan()
    page.await_requests("/device_authorization", 2)
    assert page.pauses()[0] == 5


def test_first_request_is_not_repeated_after_a_long_wait(page: Page) -> None:
    """The user would look at an empty page for so long."""
    page.service.say("/device_authorization", 429, {"error": "rate_limited"}, Retry_After="300")
    page.scan()
    assert page.outcome()["code"] == "unavailable"
    assert len(page.service.asked("/device_authorization")) == 1


def test_page_of_an_unknown_origin_learns_that_it_is_unknown(page: Page) -> None:
    page.service.allows_origin = False
    page.scan()
    found = page.outcome()
    page.service.allows_origin = True
    assert (found["code"], "WXAUTH_CORS_ORIGINS" in found["message"]) == ("unavailable", True)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"error": "invalid_client"}, "invalid_client"),
        (400, {"error": "invalid_request", "error_description": "appid is needed"}, "invalid_request"),
        (404, {"code": "not_found", "detail": "No such route"}, "not_found"),
        (403, [], "not_understood"),
        (200, None, "not_understood"),
    ],
)
def test_wrong_configuration_rejects_at_once_with_its_code(status: int, body: Any, code: str, page: Page) -> None:
    page.service.say("/device_authorization", status, body)
    page.scan()
    assert page.outcome()["code"] == code
    assert len(page.service.requests) == 1


# --- The page of a <web-view>


@pytest.mark.parametrize(
    ("fragment", "rest"),
    [
        ("#ticket=wxt_%2F%261", ""),
        ("#ticket=wxt_%2F%261&page=2", "#page=2"),
        ("#page=2&ticket=wxt_%2F%261", "#page=2"),
    ],
)
def test_ticket_becomes_a_token_and_leaves_the_address(fragment: str, rest: str, page: Page) -> None:
    page.open(fragment)
    page.service.say("/login", 200, LOGGED_IN)
    length = page.browser.run("return history.length")
    page.browser.run("ticket(...arguments)", page.service.url, {"device": "the shop"})
    assert page.outcome() == {"value": TOKEN}
    assert page.service.asked("/login") == [{"ticket": "wxt_/&1", "device": "the shop"}]
    assert page.browser.driver.current_url == f"{page.url}/test.html{rest}"
    assert page.browser.run("return history.length") == length


@pytest.mark.parametrize("fragment", ["", "#page=2", "#my_ticket=wxt_1"])
def test_page_without_a_ticket_sends_nothing_and_keeps_its_address(fragment: str, page: Page) -> None:
    page.open(fragment)
    page.browser.run("ticket(...arguments)", page.service.url)
    assert page.outcome() == {"value": None}
    assert page.service.requests == []
    assert page.browser.driver.current_url == f"{page.url}/test.html{fragment}"


def test_used_ticket_rejects_and_leaves_the_address(page: Page) -> None:
    page.open("#ticket=wxt_1")
    page.service.say("/login", 400, {"code": "code_invalid", "detail": "The ticket is used", "action": "login"})
    page.browser.run("ticket(...arguments)", page.service.url)
    assert page.outcome() == {"code": "code_invalid", "message": "code_invalid: The ticket is used"}
    assert page.browser.driver.current_url == f"{page.url}/test.html"


def test_ticket_is_sent_again_while_the_store_is_down(page: Page) -> None:
    page.open("#ticket=wxt_1")
    page.service.say("/login", 503, {"code": "store_unavailable"}, Retry_After="1")
    page.service.say("/login", 200, LOGGED_IN)
    page.browser.run("ticket(...arguments)", page.service.url)
    assert page.outcome() == {"value": TOKEN}


def test_no_address_holds_a_secret_and_no_post_has_a_cookie(page: Page) -> None:
    """The site's server does not get the ticket, and the service gets it in the body alone."""
    page.browser.run("document.cookie = 'a=1'")
    page.open("#ticket=wxt_1")
    page.service.say("/login", 200, LOGGED_IN)
    page.service.say("/token", 200, TOKEN)
    page.browser.run("ticket(...arguments)", page.service.url)
    page.outcome()
    page.scan()
    page.outcome()
    secrets = ("wxt_1", "wxa_token", "device-code")
    addresses = [path for path, _ in page.service.requests] + page.browser.run("return [location.href]")
    assert len(addresses) > 3
    assert [it for it in (*addresses, *page.site.asked) if any(secret in it for secret in secrets)] == []
    assert set(page.service.cookies) == {""}


# --- The real service


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("website")
    shutil.copy(CLIENT, folder)
    (folder / "test.html").write_text(PAGE.replace("SPEED", "1"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        website = stack.enter_context(Website(folder))
        redis, wechat = stack.enter_context(RedisServer()), stack.enter_context(WeChatServer())
        client = {"WXAUTH_PUBLIC_CLIENTS": "console", "WXAUTH_CORS_ORIGINS": website.url, "WXAUTH_PUBLIC_URL": url}
        page = {"WXAUTH_SCAN_PAGE": "pages/scan/index"}
        stack.enter_context(Service(environment(redis.url, wechat.url, **client, **page), port))
        browser = stack.enter_context(Browser(website.url))
        yield Page(browser, Login(url, wechat, redis), website)


def shown_code(page: Page, not_code: str = "") -> str:
    """Wait for a code with an image, and return it."""
    script = "return !!document.images[0]?.naturalWidth"
    wait_until(lambda: page.codes() not in ([], [not_code]) and page.browser.run(script), "the code")
    return page.codes()[0]


#: Send the token of the login to the service, as the page would.
WHO = """
const [url, token, done] = arguments
const headers = { Authorization: `Bearer ${token}` }
fetch(`${url}/session`, { headers }).then(it => it.json()).then(done)
"""


def session_of(page: Page, token: str) -> dict[str, Any]:
    found: dict[str, Any] = page.browser.driver.execute_async_script(WHO, page.service.url, token)
    return found


def test_website_is_logged_in_by_the_phone_at_the_real_service(real: Page) -> None:
    """The page polls at the pace of the service, and may read the answers although its origin is another one."""
    phone = real.service.phone()
    real.open()
    real.scan()
    code = shown_code(real)
    wait_until(lambda: len(real.pauses()) > 2, "two polls")
    assert phone.get(f"/device/{code}")["client_name"] == "console"
    assert phone.answer(code, approve=True) == 204
    session = session_of(real, real.outcome()["value"]["access_token"])
    assert (session["openid"], session["device"]) == (phone.get("/session")["openid"], "console")
    assert set(real.pauses()) == {2}


def test_website_is_refused_by_the_phone_at_the_real_service(real: Page) -> None:
    phone = real.service.phone()
    real.open()
    real.scan()
    assert phone.answer(shown_code(real), approve=False) == 204
    assert real.outcome()["code"] == "access_denied"


def test_website_renews_a_code_that_the_real_service_has_lost(real: Page) -> None:
    """A key that is gone stands for the five minutes of a code."""
    real.open()
    real.scan()
    code = shown_code(real)
    real.service.redis.client().flushdb()
    renewed = shown_code(real, not_code=code)
    assert real.service.phone().answer(renewed, approve=True) == 204
    assert real.outcome()["value"]["token_type"] == "Bearer"


def test_page_is_logged_in_with_a_ticket_at_the_real_service(real: Page) -> None:
    """The ticket works once."""
    phone = real.service.phone()
    ticket = requests.post(f"{real.service.url}/ticket", headers=phone.headers, timeout=5).json()["ticket"]
    real.open(f"#ticket={ticket}")
    real.browser.run("ticket(...arguments)", real.service.url)
    session = session_of(real, real.outcome()["value"]["access_token"])
    assert (session["openid"], session["device"]) == (phone.get("/session")["openid"], "web-view")
    real.open(f"#ticket={ticket}")
    real.browser.run("ticket(...arguments)", real.service.url)
    assert real.outcome()["code"] == "code_invalid"


def test_page_of_another_origin_reads_nothing_from_the_real_service(real: Page) -> None:
    with Website(ROOT / "examples" / "website") as stranger:
        real.browser.driver.get(stranger.url)
        ask = "fetch(`${arguments[0]}/session`).then(arguments[1], error => arguments[1](error.name))"
        found = real.browser.driver.execute_async_script(ask, real.service.url)
        real.browser.driver.get("about:blank")
    assert found == "TypeError"


@pytest.mark.parametrize(("client_id", "code"), [("stranger", "invalid_client"), ("", "invalid_client")])
def test_website_that_is_no_client_is_told_so_by_the_real_service(client_id: str, code: str, real: Page) -> None:
    real.open()
    real.scan(clientId=client_id)
    assert real.outcome()["code"] == code


# --- The page of the documentation


def blocks(language: str) -> list[str]:
    """Return the blocks of the documentation, as the two HTML pages: for a website, and for a <web-view>."""
    text = (ROOT / "docs" / "scan-login.md").read_text()
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def shown(shared: Page, tmp_path: Path) -> Iterator[Website]:
    """A website with the pages of the documentation, which ask the scripted service."""
    shared.browser.driver.get("about:blank")
    shared.service.reset()
    shutil.copy(CLIENT, tmp_path)
    for name, block in zip(("website", "web-view"), blocks("html"), strict=True):
        html = f"<!doctype html>{block}".replace("https://login.example.com", shared.service.url)
        (tmp_path / f"{name}.html").write_text(html)
    with Website(tmp_path) as website:
        yield website
        shared.browser.driver.get("about:blank")  # closes its connections to this website


def test_page_of_the_documentation_shows_a_code_and_ends_with_the_token(shared: Page, shown: Website) -> None:
    shared.browser.driver.get(f"{shown.url}/website.html")
    wait_until(lambda: shared.browser.text("#login") == CODES[0], "the code")
    shared.service.say("/token", 200, TOKEN)
    wait_until(
        lambda: shared.browser.run("return document.querySelector('#login').childElementCount") == 0, "the login"
    )
    assert shared.service.asked("/token")[-1]["client_id"] == "console"


def test_web_view_of_the_documentation_keeps_the_token_of_its_ticket(shared: Page, shown: Website) -> None:
    shared.service.say("/login", 200, LOGGED_IN)
    shared.browser.driver.get(f"{shown.url}/web-view.html#ticket=wxt_1")
    wait_until(lambda: shared.browser.run("return sessionStorage.token") == "wxa_token", "the token")
    shared.browser.driver.refresh()
    assert shared.browser.run("return [sessionStorage.token, location.hash]") == ["wxa_token", ""]
    assert shared.service.asked("/login") == [{"ticket": "wxt_1"}]


def test_policy_of_the_documentation_lets_the_login_work(shared: Page, shown: Website, tmp_path: Path) -> None:
    """The script is in a file, as the documentation says."""
    (policy,) = blocks("text")
    content = policy.partition(": ")[2].strip().replace("https://login.example.com", shared.service.url)
    page, script = (tmp_path / name for name in ("website.html", "website.js"))
    before, _, inline = page.read_text().partition('<script type="module">')
    script.write_text(inline.partition("</script>")[0])
    meta = f'<meta http-equiv="Content-Security-Policy" content="{content}">'
    page.write_text(f'{meta}{before}<script type="module" src="website.js"></script>')
    shared.browser.console_messages()
    shared.service.say("/token", 200, TOKEN)
    shared.browser.driver.get(f"{shown.url}/website.html")
    shared.await_requests("/token", 1)
    assert shared.service.asked(f"/device/{CODES[0]}.png")
    assert [it for it in shared.browser.console_messages() if "favicon" not in it["message"]] == []


class Terminal(Server):
    """A line of the documentation that starts a server. It needs no other variables than its own."""

    def __init__(self, line: str, url: str) -> None:
        self.url = url
        line = line.replace("python3", sys.executable).replace("make run", f"{sys.executable} app.py")
        environ = {"PATH": os.environ["PATH"], "PORT": url.rpartition(":")[2]}
        super().__init__(["/bin/sh", "-c", f"exec env {line}"], environ=environ, cwd=ROOT)

    def answers(self) -> bool:
        try:
            return requests.get(self.url, timeout=5).ok
        except requests.ConnectionError:
            return False


def test_lines_of_the_documentation_log_in_the_website_of_the_sandbox(shared: Page, tmp_path: Path) -> None:
    """Three terminals: the sandbox, the website and the phone. Both servers get a free port and the page knows it."""
    folder = shutil.copytree(FOLDER, tmp_path / "website")
    services, sites = (f"http://127.0.0.1:{free_port()}" for _ in range(2))

    def moved(line: str) -> str:
        line = line.replace("http://127.0.0.1:8000", services).replace("http://127.0.0.1:8080", sites)
        return line.replace("8080", sites.rpartition(":")[2]).replace("examples/website", str(folder))

    (folder / "index.html").write_text(moved((folder / "index.html").read_text()))
    sandbox, website, phone = (moved(line) for line in blocks("sh") if "8000" in line or "8080" in line)
    with Terminal(sandbox, services), Terminal(website, sites):
        shared.browser.driver.get(sites)
        wait_until(lambda: shared.codes() != [], "the code")
        line = phone.replace("THE-CODE", shared.codes()[0])
        shown = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, timeout=30).stdout
        wait_until(lambda: shared.browser.text("#hint").startswith("登录成功：oSANDBOX"), "the login")
        shared.browser.driver.get("about:blank")
    assert json.loads(shown)["client_name"] == "console"


# --- The files


def test_client_is_one_short_file_without_imports() -> None:
    """Users copy this file."""
    text = CLIENT.read_text()
    assert len(text.splitlines()) <= 120
    assert not re.search(
        r"^import|\brequire\b|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text, re.M
    )
    assert not re.search(r"localStorage\.|sessionStorage\.|document\.cookie", text)


def test_page_of_the_example_logs_in(tmp_path: Path, shared: Page) -> None:
    """It uses the address of the sandbox, which is replaced by the scripted service."""
    shared.browser.driver.get("about:blank")
    shared.service.reset()
    shutil.copy(CLIENT, tmp_path)
    text = (FOLDER / "index.html").read_text()
    (tmp_path / "index.html").write_text(text.replace("http://127.0.0.1:8000", shared.service.url))
    shared.service.say("/token", 400, {"error": "access_denied"})
    shared.service.say("/token", 200, TOKEN)
    shared.service.say("/session", 200, {"openid": "o1"})
    browser = shared.browser
    with Website(tmp_path) as website:
        browser.driver.get(website.url)
        wait_until(lambda: browser.text("#hint") == "你在手机上取消了登录", "the refusal")
        browser.driver.find_element("css selector", "#again").click()
        wait_until(lambda: browser.text("#login") == CODES[1], "the second code")
        wait_until(lambda: browser.text("#hint") == "登录成功：o1", "the login")
        browser.driver.get("about:blank")  # close the connections to this website
