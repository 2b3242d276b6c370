"""The playground: its files, and what somebody sees who clicks through it in a real browser."""

from __future__ import annotations

import fnmatch
import html
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from selenium.webdriver.common.keys import Keys

import wxauth.sandbox
from tests.browser import Browser
from tests.servers import RedisServer, free_port, program
from tests.service import ROOT, Sandbox, environment
from wxauth.sandbox import create_app
from wxauth.sandbox.playground import FILES, KINDS
from wxauth.settings import Settings

PACKAGE = Path(wxauth.sandbox.__file__).parent

# --- The files


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()


@pytest.mark.parametrize("path", ["/", *(f"/sandbox/page/{name}" for name in FILES)])
def test_every_file_is_served(client: FlaskClient, path: str) -> None:
    """As what it is, and with a policy that lets in nothing from elsewhere and executes nothing that is inline."""
    response = client.get(path)
    assert response.status_code == 200
    assert response.mimetype == KINDS[Path(path).suffix or ".html"]
    assert "default-src 'self';" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["no.js", "..%2fassembly.py", "%2e%2e/assembly.py", "assembly.py"])
def test_no_other_file_is_served(client: FlaskClient, name: str) -> None:
    """Only what was there when the sandbox started can be asked for."""
    assert client.get(f"/sandbox/page/{name}").status_code == 404


def test_every_file_is_in_the_wheel() -> None:
    """Package data names all of them."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [str(path.relative_to(PACKAGE)) for path in FILES.values()]
    missing = [file for file in files if not any(fnmatch.fnmatch(file, it) for it in patterns["wxauth.sandbox"])]
    assert (len(files) > 5, missing) == (True, [])


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host(name: str) -> None:
    """No CDN, no font, no counter; SVG's own name is no address."""
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[\w.:-]+", FILES[name].read_text())}
    assert hosts <= {"127.0.0.1", "www.w3.org"}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_nothing_becomes_markup(name: str) -> None:
    """Whatever the page shows it shows as text."""
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", FILES[name].read_text())


# --- The code to copy


def snippet(beginning: str) -> str:
    """What a reader copies who copies the snippet that begins so."""
    found = re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code>", FILES["index.html"].read_text(), re.DOTALL)
    (text,) = (text for text in map(html.unescape, found) if text.startswith(beginning))
    return text


def test_the_mini_program_is_javascript(tmp_path: Path) -> None:
    """Node can read it."""
    file = tmp_path / "page.js"
    file.write_text(snippet("const auth"))
    assert subprocess.run([program("node"), "--check", file], check=False, timeout=30).returncode == 0


def test_the_flask_application_asks_who_is_there(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer) -> None:
    """It runs in the service's environment, and lets nobody in without a token."""
    for name, value in environment(redis_server.url, "http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(snippet("from flask"), "playground", "exec"), names)  # noqa: S102 - it is our own page
    assert names["app"].test_client().get("/orders").get_json()["code"] == "token_missing"


def test_nginx_accepts_its_part(tmp_path: Path) -> None:
    """Within a server, as one pastes it."""
    file = tmp_path / "nginx.conf"
    server = f"server {{ listen 127.0.0.1:{free_port()}; {snippet('location')} }}"
    file.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {server} }}")
    command = [program("nginx"), "-t", "-e", f"{tmp_path}/log", "-c", str(file)]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0


# --- In a browser


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def shared(sandbox: Sandbox) -> Iterator[Browser]:
    with Browser(f"{sandbox.url}/") as running:
        yield running


@pytest.fixture
def browser(shared: Browser) -> Iterator[Browser]:
    """The page, fresh; and whatever a test did in it, the console had nothing to say and nobody else was asked."""
    shared.open()
    yield shared
    shared.media()
    assert shared.complaints() == []
    assert {urlsplit(url).hostname for url in shared.addresses() if url.startswith("http")} == {"127.0.0.1"}


def titles(browser: Browser) -> list[str]:
    """The messages by their titles, without the mark that they can be opened."""
    found: list[str] = browser.run("return [...document.querySelectorAll('.title')].map(it => it.firstChild.data)")
    return found


def problem(browser: Browser) -> str:
    return browser.text("#problem-code")


def kinds_in_redis(browser: Browser) -> list[str]:
    return browser.texts("#redis-name ~ #keys .kind")


SESSIONS_AFTER_EACH = """
return [...document.querySelectorAll('.opened details')].map(it => it.querySelectorAll('.kind-s').length)
"""
LOGIN = ["wx.login()", "POST /login", "Redis", "GET /sns/jscode2session", "Redis", "200 OK"]


def test_a_login_is_shown_message_by_message(browser: Browser) -> None:
    """In the order in which they happened; the five that a newcomer has to know are numbered."""
    browser.press("#login")
    assert titles(browser) == LOGIN
    assert [step for step in browser.texts(".strip .step") if step] == ["1", "2", "3", "4", "5"]


def test_the_phone_knows_that_it_is_logged_in(browser: Browser) -> None:
    """It has a token, and can ask who it is."""
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.press("#whoami")
    assert token.startswith("wxa_")
    assert "oSANDBOX" in browser.text("#whoelse")


def test_redis_is_shown_as_it_is(browser: Browser) -> None:
    """A login leaves a counter, a session and its user's hash; each says how long it lives."""
    browser.press("#login")
    assert {"counter", "session", "user"} <= set(kinds_in_redis(browser))
    assert all("left" in facts for facts in browser.texts("#keys .facts"))


def test_a_logout_is_shown(browser: Browser) -> None:
    """The phone has no token any more, and can log in again."""
    browser.press("#login")
    browser.press("#logout")
    assert titles(browser) == ["DELETE /session", "Redis", "204 No Content"]
    assert (browser.text("#pocket-token"), browser.text("#login")) == ("none", "Log in with WeChat")


def test_a_message_opens_and_closes(browser: Browser) -> None:
    """The HTTP of the exchange with WeChat is there, with dots for AppSecret and session_key."""
    browser.press("#login")
    browser.press("li:nth-child(4) > .row")
    asked, answered = browser.texts(".opened pre")
    assert "&secret=••••••••&js_code=" in asked.replace("\n", "")
    assert '"session_key": "••••••••"' in answered
    browser.press("li:nth-child(4) > .row")
    assert browser.texts(".opened") == []


def test_every_message_shows_what_redis_holds_after_it(browser: Browser) -> None:
    """Before the exchange with WeChat there is no new session yet; when the token goes out there is."""
    browser.press("#login")
    browser.run("for (const row of document.querySelectorAll('.row')) row.click()")
    sessions = browser.run(SESSIONS_AFTER_EACH)
    assert [number - sessions[0] for number in sessions] == [0, 0, 0, 0, 1, 1]


def test_a_message_to_redis_shows_what_was_said(browser: Browser) -> None:
    """The commands, the replies, and at once what came of them."""
    browser.press("#login")
    browser.press("li:nth-child(5) > .row")
    assert "> MULTI\n< OK\n> SET wxa:{" in browser.text(".opened pre")
    assert "session" in browser.texts(".opened .kind")


#: Each failure by what the phone is told, and what the button that follows leads to.
FAILURES = {
    "used": ("400 code_used", '"action": "login"', "Log in again"),
    "expired": ("401 token_invalid", '"action": "login"', "Log in again"),
    "busy": ("503 wechat_busy", '"action": "retry"', "Wait 1 s, try again"),
    "gone": ("503 store_unavailable", '"action": "retry"', "Wait 1 s, try again"),
    "elsewhere": ("401 token_invalid", '"action": "login"', "Log in again"),
    "forged": ("401 token_invalid", '"action": "login"', "Log in again"),
}


@pytest.mark.parametrize(("scene", "expected"), FAILURES.items(), ids=FAILURES)
def test_a_failure_is_a_problem_with_a_way_out(browser: Browser, scene: str, expected: tuple[str, ...]) -> None:
    """The phone shows the problem and its action; who does as it says is logged in at the end."""
    browser.press(f"[data-scene={scene}]")
    assert (problem(browser), browser.text("#problem-action"), browser.text("#cure")) == expected
    if scene == "gone":
        browser.press("#plug")
    browser.press("#cure")
    assert browser.text("#who") == "Logged in"


def test_a_blocked_user_is_told_and_no_more(browser: Browser) -> None:
    """Where the action is none, nothing is tried again."""
    browser.press("[data-scene=blocked]")
    seen = (problem(browser), browser.text("#problem-action"))
    sent = titles(browser)
    browser.press("#cure")
    assert (seen, titles(browser)) == (("403 user_blocked", '"action": "none"'), sent)


def test_a_busy_wechat_is_asked_three_times(browser: Browser) -> None:
    """Each of the tries is a message."""
    browser.press("[data-scene=busy]")
    assert titles(browser).count("GET /sns/jscode2session") == 3


def test_nobody_is_asked_about_a_forged_token(browser: Browser) -> None:
    """Between the request and its refusal there is no message."""
    browser.press("[data-scene=forged]")
    assert titles(browser) == ["GET /session", "401 token_invalid"]


def test_redis_comes_back_with_the_session(browser: Browser) -> None:
    """The outage is shown, and after it the phone goes on with the token that it had."""
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.press("[data-scene=gone]")
    assert (browser.text("#keys"), "can’t be reached" in browser.text("#redis-gone")) == ("", True)
    browser.press("#plug")
    browser.press("#cure")
    assert (browser.text("#who"), browser.text("#pocket-token")) == ("Logged in", token)


def test_two_phones_have_two_sessions(browser: Browser) -> None:
    """Both log in at the same moment, and none overwrites the other."""
    browser.press("[data-scene=two]")
    assert len([title for title in browser.texts(".title em") if title == "second phone"]) == len(LOGIN)
    assert kinds_in_redis(browser).count("session") >= 2


def test_silence_is_no_problem_of_the_service(browser: Browser) -> None:
    """Where there was no answer the page says so, and makes up no action; the token is kept."""
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.cut_off(True)
    browser.press("#whoami")
    browser.cut_off(False)
    assert (problem(browser), browser.text("#problem-action")) == ("unreachable", "")
    assert browser.text("#pocket-token") == token


def test_a_login_needs_no_mouse(browser: Browser) -> None:
    """Tab leads to the button, Enter presses it, and the focus is then on what comes next."""
    for _ in range(10):
        browser.type(Keys.TAB)
        if browser.focused() == "login":
            break
    browser.type(Keys.ENTER)
    browser.settle()
    assert (browser.text("#who"), browser.focused()) == ("Logged in", "whoami")


def test_tabs_obey_the_arrow_keys(browser: Browser) -> None:
    """As ARIA's pattern says: an arrow chooses, and the focus follows."""
    browser.run("document.getElementById('tab-flow').focus()")
    browser.type(Keys.ARROW_RIGHT)
    there = (browser.focused(), browser.text("#panel-flow"), bool(browser.text("#panel-code")))
    browser.type(Keys.ARROW_RIGHT)
    assert (there, browser.focused()) == (("tab-code", "", True), "tab-flow")


def test_the_code_has_the_reader_s_address(browser: Browser, sandbox: Sandbox) -> None:
    """What is copied works where it was copied; the mini program may be given another address."""
    browser.press("#tab-code")
    assert f"create({{ baseURL: '{sandbox.url}' }})" in browser.text("#panel-code")
    browser.run("address.focus(); address.select()")
    browser.type("https://login.example.com")
    assert "create({ baseURL: 'https://login.example.com' })" in browser.text("#panel-code")
    assert f"proxy_pass {sandbox.url}" in browser.text("#panel-code")


def test_messages_move_where_that_is_wanted(browser: Browser) -> None:
    """Who has not asked for less motion sees them come one after the other."""
    browser.media(motion="no-preference")
    browser.run("document.getElementById('login').click()")
    moving = browser.run("return document.body.classList.contains('running')")
    browser.settle()
    assert (moving, titles(browser)) == (True, LOGIN)


@pytest.mark.parametrize(("language", "expected"), [("zh-CN", "zh-CN"), ("zh-TW", "zh-CN"), ("de", "en")])
def test_the_page_speaks_the_browser_s_language(browser: Browser, language: str, expected: str) -> None:
    """Chinese or English, as the browser asks for."""
    browser.speak(language)
    browser.open_anew()
    browser.speak("en")
    assert browser.run("return document.documentElement.lang") == expected


def test_the_language_can_be_changed(browser: Browser) -> None:
    """At once, also for what is shown already."""
    browser.press("#login")
    browser.press("#language")
    assert (browser.text("#who"), browser.text("#scene-title")) == ("已登录", "登录")


def test_the_theme_is_the_browser_s_until_it_is_changed(browser: Browser) -> None:
    """Dark where dark is preferred; the button turns it over."""
    browser.media(scheme="dark")
    browser.open_anew()
    colour = "return getComputedStyle(document.body).backgroundColor"
    dark = browser.run(colour)
    browser.press("#theme")
    assert (dark, browser.run(colour)) == ("rgb(15, 18, 17)", "rgb(243, 245, 241)")


KEYS_OF_TEXT = """
const [done] = [...arguments].slice(-1)
const places = (text) => Object.entries(text).map(([key, said]) => [key, (said.match(/\\{\\w+\\}/g) ?? []).sort()])
import('./sandbox/page/text.js').then(({ TEXT }) => done([places(TEXT.en), places(TEXT.zh)]))
"""


def test_every_sentence_is_there_in_both_languages(browser: Browser) -> None:
    """The same keys, with the same places to fill in; and what the page asks for is among them."""
    english, chinese = browser.driver.execute_async_script(KEYS_OF_TEXT)
    used = set(browser.run("return [...document.querySelectorAll('[data-t]')].map(it => it.dataset.t)"))
    assert english == chinese
    assert used <= {key for key, _ in english}


#: Every text that can be seen with too little contrast to what lies behind it, by WCAG 2.2's formula.
FAINT = """
const luminance = (colour) => {
  const linear = (it) => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4
  const parts = colour.slice(0, 3).map(it => linear(it / 255))
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
}
const numbers = (text) => text.match(/[\\d.]+/g).map(Number)
const behind = (element) => {
  for (let it = element; it; it = it.parentElement) {
    const colour = numbers(getComputedStyle(it).backgroundColor)
    if (colour.length === 3 || colour[3] === 1) return colour
  }
  return [255, 255, 255]
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
const faint = []
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('noscript, .step')) continue
  const style = getComputedStyle(element)
  const fore = luminance(numbers(element.closest('svg') ? style.fill : style.color))
  const back = luminance(behind(element))
  const contrast = (Math.max(fore, back) + 0.05) / (Math.min(fore, back) + 0.05)
  if (contrast < 4.5) faint.push([walker.currentNode.data, contrast])
}
return faint
"""
TOO_WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: Each of the two with each of the others.
LOOKS = [(360, "en", "light"), (360, "zh", "dark"), (1280, "en", "dark"), (1280, "zh", "light")]


@pytest.mark.parametrize(("width", "language", "theme"), LOOKS)
def test_everything_can_be_read(browser: Browser, width: int, language: str, theme: str) -> None:
    """On a phone and on a desk, in both languages and themes: nothing sticks out sideways, nothing is faint."""
    browser.open(language=language, theme=theme, width=width)
    found: dict[str, Any] = {}
    for scene in ("#login", "[data-scene=gone]", "[data-scene=two]", "#tab-code"):
        browser.press(scene)
        browser.run("for (const row of document.querySelectorAll('.row[aria-expanded=false]')) row.click()")
        found[scene] = (browser.run(TOO_WIDE), browser.run(FAINT))
    assert found == dict.fromkeys(found, (0, []))
