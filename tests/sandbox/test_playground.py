"""The playground: its files, and its behaviour in a real browser."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
import segno
from flask.testing import FlaskClient
from selenium.webdriver.common.keys import Keys

import wxauth.sandbox
from tests.support.browser import DRAWN, Browser
from tests.support.servers import RedisServer, free_port, program, wait_until
from tests.support.service import ROOT, Sandbox, environment
from wxauth.sandbox.playground import FILES, KINDS
from wxauth.settings import Settings
from wxauth.web.app import create_app

PACKAGE = Path(wxauth.sandbox.__file__).parent

# --- The files


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()


@pytest.mark.parametrize("path", ["/", *(f"/sandbox/page/{name}" for name in FILES)])
def test_each_file_is_served_with_its_type_and_a_strict_policy(client: FlaskClient, path: str) -> None:
    """The policy allows only this origin and no inline scripts."""
    response = client.get(path)
    assert response.status_code == 200
    assert response.mimetype == KINDS[Path(path).suffix or ".html"]
    assert "default-src 'self';" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["no.js", "..%2fapp.py", "%2e%2e/app.py", "app.py"])
def test_another_file_is_a_404(client: FlaskClient, name: str) -> None:
    assert client.get(f"/sandbox/page/{name}").status_code == 404


@pytest.mark.parametrize("name", FILES)
def test_no_file_contains_the_address_of_another_host(name: str) -> None:
    """The SVG namespace is not an address."""
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[\w.:-]+", FILES[name].read_text())}
    assert hosts <= {"127.0.0.1", "www.w3.org"}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_no_script_creates_markup_from_text(name: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", FILES[name].read_text())


# --- The code to copy


def snippet(beginning: str) -> str:
    """Return the code snippet that starts with `beginning`."""
    found = re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code>", FILES["index.html"].read_text(), re.DOTALL)
    (text,) = (text for text in map(html.unescape, found) if text.startswith(beginning))
    return text


def test_node_accepts_the_mini_program_snippet(tmp_path: Path) -> None:
    file = tmp_path / "page.js"
    file.write_text(snippet("const auth"))
    assert subprocess.run([program("node"), "--check", file], check=False, timeout=30).returncode == 0


def test_the_flask_snippet_rejects_a_request_without_a_token(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    """It runs with the environment of the service."""
    for name, value in environment(redis_server.url, "http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(snippet("from flask"), "playground", "exec"), names)  # noqa: S102 - it is our own page
    assert names["app"].test_client().get("/orders").get_json()["code"] == "token_missing"


def test_nginx_accepts_its_snippet(tmp_path: Path) -> None:
    """Inside a server block."""
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
def browser(shared: Browser, sandbox: Sandbox) -> Iterator[Browser]:
    """A new page and an empty Redis. After the test, the console has no error, and no host but this was asked."""
    requests.put(f"{sandbox.url}/sandbox/redis", timeout=5)
    requests.delete(f"{sandbox.url}/sandbox/redis/keys", timeout=5).raise_for_status()
    wait_until(lambda: requests.get(f"{sandbox.url}/readyz", timeout=5).ok, "the service with its Redis")
    shared.open()
    yield shared
    shared.media()
    assert shared.console_messages() == []
    assert {urlsplit(url).hostname for url in shared.addresses() if url.startswith("http")} == {"127.0.0.1"}


def titles(browser: Browser) -> list[str]:
    """The titles of the messages, without the marker for opening."""
    found: list[str] = browser.run("return [...document.querySelectorAll('.title')].map(it => it.firstChild.data)")
    return found


def problem(browser: Browser) -> str:
    return browser.text("#problem-code")


def kinds_in_redis(browser: Browser) -> list[str]:
    return browser.texts("#redis-name ~ #keys .kind")


def sessions_in_redis(browser: Browser) -> int:
    return len(browser.texts("#keys [data-t='held.session']"))


SESSIONS_AFTER_EACH = """
const opened = [...document.querySelectorAll('.opened details')]
return opened.map(it => it.querySelectorAll('[data-t="held.session"]').length)
"""
LOGIN = ["wx.login()", "POST /login", "Redis", "GET /sns/jscode2session", "Redis", "200 OK"]


def test_login_shows_the_messages_in_order(browser: Browser) -> None:
    """Five of them are numbered."""
    browser.press("#login")
    assert titles(browser) == LOGIN
    assert [step for step in browser.texts(".strip .step") if step] == ["1", "2", "3", "4", "5"]


def test_the_phone_has_a_token_and_an_openid_after_login(browser: Browser) -> None:
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.press("#whoami")
    assert token.startswith("wxa_")
    assert "oSANDBOX" in browser.text("#whoelse")


def test_a_reload_keeps_the_token_of_the_phone(browser: Browser) -> None:
    """As long as it is valid: a logout ends it."""
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.driver.refresh()
    browser.settle()
    seen = (browser.text("#who"), browser.text("#pocket-token"), titles(browser))
    browser.press("#logout")
    browser.driver.refresh()
    browser.settle()
    assert seen == ("Logged in", token, [])
    assert (browser.text("#who"), browser.text("#pocket-token")) == ("Not logged in", "none")


def test_redis_shows_a_counter_and_a_user_with_a_session_after_login(browser: Browser) -> None:
    """Each key has a time limit."""
    browser.press("#login")
    assert {"counter", "user"} <= set(kinds_in_redis(browser))
    assert sessions_in_redis(browser) >= 1
    assert all("left" in facts for facts in browser.texts("#keys .facts"))


def test_logout_shows_its_messages_and_removes_the_token(browser: Browser) -> None:
    browser.press("#login")
    browser.press("#logout")
    assert titles(browser) == ["DELETE /session", "Redis", "204 No Content"]
    assert (browser.text("#pocket-token"), browser.text("#login")) == ("none", "Log in with WeChat")


def test_a_message_opens_with_masked_secrets_and_closes(browser: Browser) -> None:
    browser.press("#login")
    browser.press("li:nth-child(4) > .row")
    asked, answered = browser.texts(".opened pre")
    assert "&secret=••••••••&js_code=" in asked.replace("\n", "")
    assert '"session_key": "••••••••"' in answered
    browser.press("li:nth-child(4) > .row")
    assert browser.texts(".opened") == []


def test_each_message_shows_the_content_of_redis_after_it(browser: Browser) -> None:
    """The new session is there from the second Redis message on."""
    browser.press("#login")
    browser.run("for (const row of document.querySelectorAll('.row')) row.click()")
    sessions = browser.run(SESSIONS_AFTER_EACH)
    assert [number - sessions[0] for number in sessions] == [0, 0, 0, 0, 1, 1]


def test_a_redis_message_shows_commands_replies_and_content(browser: Browser) -> None:
    browser.press("#login")
    browser.press("li:nth-child(5) > .row")
    assert re.search(r"> EVALSHA \w+ 1 wxa:\{", browser.text(".opened pre"))
    assert any(line.startswith("session of alice, encrypted") for line in browser.texts(".opened .held p"))


#: For each failure: the problem, its action, and the label of the next button.
FAILURES = {
    "used": ("400 code_used", '"action": "login"', "Log in again"),
    "expired": ("401 token_invalid", '"action": "login"', "Log in again"),
    "busy": ("503 wechat_busy", '"action": "retry"', "Wait 1 s, try again"),
    "gone": ("503 store_unavailable", '"action": "retry"', "Wait 1 s, try again"),
    "elsewhere": ("401 session_revoked", '"action": "ask"', "Log in on this phone"),
    "second": ("401 session_replaced", '"action": "ask"', "Log in on this phone"),
    "forged": ("401 token_invalid", '"action": "login"', "Log in again"),
    "stalled": ("503 wechat_unreachable", '"action": "retry"', "Wait 2 s, try again"),
    "unlisted": ("503 wechat_misconfigured", '"action": "none"', "Add the address, try again"),
    "banned": ("403 user_banned", '"action": "none"', "Allow the user again"),
    "stale": ("409 session_key_stale", '"action": "login"', "Log in again"),
}


@pytest.mark.parametrize(("scene", "expected"), FAILURES.items(), ids=FAILURES)
def test_a_failure_shows_its_problem_and_the_next_step_logs_in(
    browser: Browser, scene: str, expected: tuple[str, ...]
) -> None:
    browser.press(f"[data-scene={scene}]")
    assert (problem(browser), browser.text("#problem-action"), browser.text("#cure")) == expected
    if scene == "gone":
        browser.press("#plug")
    browser.press("#cure")
    assert browser.text("#who") == "Logged in"


def test_a_phone_that_another_one_logged_out_says_why_and_does_not_log_in(browser: Browser) -> None:
    """Its token is deleted, and its button is the only way to log in."""
    browser.press("[data-scene=elsewhere]")
    assert titles(browser)[-1] == "401 session_revoked"
    assert browser.text("#problem-told") == "Another phone logged you out."
    assert (browser.text("#pocket-token"), browser.texts("#phone-buttons button:not([hidden])")) == (
        "none",
        ["Log in on this phone"],
    )
    assert "only if the user asks for it" in browser.text("#lesson-told")


def test_a_blocked_user_is_told_and_nothing_is_retried(browser: Browser) -> None:
    """The action is none."""
    browser.press("[data-scene=blocked]")
    seen = (problem(browser), browser.text("#problem-action"))
    sent = titles(browser)
    browser.press("#cure")
    assert (seen, titles(browser)) == (("403 user_blocked", '"action": "none"'), sent)


@pytest.mark.parametrize(
    ("language", "told"), [("en", "Too many logins. Please wait."), ("zh", "登录过于频繁，请稍后再试。")]
)
def test_a_login_beyond_the_limit_does_not_reach_wechat(browser: Browser, language: str, told: str) -> None:
    """The button sets the configured limit again."""
    browser.open(language=language)
    browser.press("[data-scene=limited]")
    seen = (titles(browser)[-1], browser.text("#problem-told"), "GET /sns/jscode2session" in titles(browser))
    browser.press("#cure")
    assert (seen, titles(browser)[-1]) == (("429 rate_limited", told, False), "200 OK")


def test_another_scene_after_a_ban_allows_the_user_again(browser: Browser) -> None:
    browser.press("[data-scene=banned]")
    browser.press("[data-scene=forged]")
    assert problem(browser) == "401 token_invalid"


def test_the_phone_button_shows_the_number_on_the_phone(browser: Browser) -> None:
    browser.press("[data-scene=number]")
    assert re.fullmatch(r"Phone number 1206660000\d", browser.text("#whoelse"))
    assert "POST /wxa/business/getuserphonenumber" in titles(browser)


def test_new_data_is_decrypted_after_a_stale_session_key(browser: Browser) -> None:
    browser.press("[data-scene=stale]")
    browser.press("#cure")
    assert browser.text("#whoelse") == "Nickname alice"


def test_a_busy_wechat_shows_three_attempts(browser: Browser) -> None:
    browser.press("[data-scene=busy]")
    assert titles(browser).count("GET /sns/jscode2session") == 3


def test_a_forged_token_is_rejected_without_a_call_to_redis(browser: Browser) -> None:
    browser.press("[data-scene=forged]")
    assert titles(browser) == ["GET /session", "401 token_invalid"]


def test_the_session_survives_an_outage_of_redis(browser: Browser) -> None:
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.press("[data-scene=gone]")
    assert (browser.text("#keys"), "can’t be reached" in browser.text("#redis-gone")) == ("", True)
    browser.press("#plug")
    browser.press("#cure")
    assert (browser.text("#who"), browser.text("#pocket-token")) == ("Logged in", token)


def test_two_phones_that_log_in_at_once_have_two_sessions(browser: Browser) -> None:
    browser.press("[data-scene=two]")
    assert len([title for title in browser.texts(".title em") if title == "phone 2"]) == len(LOGIN)
    assert sessions_in_redis(browser) >= 2


@pytest.mark.parametrize(
    ("language", "told"),
    [("en", "You logged in on another phone."), ("zh", "你已在另一部手机登录。")],
    ids=["en", "zh"],
)
def test_with_one_session_each_phone_is_told_of_the_login_of_the_other(
    browser: Browser, language: str, told: str
) -> None:
    """One tap on the first phone takes over again. Then the second one is told."""
    browser.open(language=language)
    browser.press("[data-scene=second]")
    logged_in = browser.text("#other-told")
    assert (browser.text("#problem-told"), titles(browser)[-1]) == (told, "401 session_replaced")
    browser.press("#cure")
    assert (browser.text("#who"), browser.text("#other-told")) == (logged_in, told)
    assert (titles(browser)[-1], titles(browser).count("wx.login()")) == ("401 session_replaced", 2)
    assert sessions_in_redis(browser) == 1


def test_another_scene_removes_the_second_phone_and_allows_several_sessions(browser: Browser) -> None:
    """The two new sessions, and that of the second phone."""
    browser.press("[data-scene=second]")
    browser.press("[data-scene=two]")
    assert (browser.text("#other"), sessions_in_redis(browser)) == ("", 3)


@pytest.mark.parametrize(("language", "told"), [("en", "Busy now. Try again."), ("zh", "服务繁忙，请重试。")])
def test_a_phone_without_a_token_is_not_told_that_it_stays_logged_in(
    browser: Browser, sandbox: Sandbox, language: str, told: str
) -> None:
    browser.open(language=language)
    requests.delete(f"{sandbox.url}/sandbox/redis", timeout=5).raise_for_status()
    browser.press("#login")
    seen = (problem(browser), browser.text("#problem-told"))
    requests.put(f"{sandbox.url}/sandbox/redis", timeout=5).raise_for_status()
    assert seen == ("503 store_unavailable", told)


@pytest.mark.parametrize(("chapter", "button"), [("flow", "#login"), ("scan", "#ask")])
def test_five_steps_tell_the_story_before_the_first_click(browser: Browser, chapter: str, button: str) -> None:
    """The messages replace them."""
    browser.press(f"#tab-{chapter}")
    assert len([told for told in browser.texts(".outline .told") if told]) == 5
    assert titles(browser) == []
    browser.press(button)
    assert browser.text(".outline") == ""


#: When each step of the story starts to move, in milliseconds.
STORY = """
const moving = document.getElementById('empty').getAnimations({ subtree: true })
return [...new Set(moving.filter((it) => it.animationName === 'lit').map((it) => it.effect.getTiming().delay))]
"""


def test_the_story_plays_once_step_by_step(browser: Browser) -> None:
    """Each chapter plays its own."""
    browser.media(motion="no-preference")
    browser.open()
    seen = [story(browser)]
    for tab in ("scan", "flow", "scan"):
        browser.press(f"#tab-{tab}")
        seen.append(story(browser))
    assert [len(delays) for delays in seen] == [5, 5, 0, 0]
    assert seen[0] == sorted(seen[0])


def story(browser: Browser) -> list[float]:
    """The page hears in the next frame that the story is in view."""
    browser.driver.execute_async_script(DRAWN)
    found: list[float] = browser.run(STORY)
    return found


def test_the_story_starts_when_the_window_shows_it(browser: Browser) -> None:
    """Not before."""
    browser.media(motion="no-preference")
    browser.open(width=390, height=300)
    before = story(browser)
    browser.run("document.getElementById('empty').scrollIntoView()")
    browser.resize(390, 844)
    assert (before, len(story(browser))) == ([], 5)


def test_the_story_stands_still_with_reduced_motion(browser: Browser) -> None:
    moving = browser.run("return document.getElementById('empty').getAnimations({ subtree: true }).length")
    assert (moving, len([told for told in browser.texts(".outline .told") if told])) == (0, 5)


def test_the_messages_of_a_login_carry_what_the_story_said(browser: Browser) -> None:
    """Each label of the story is the label of a message, or its end."""
    labels = "return [...document.querySelectorAll(arguments[0])].map(it => it.textContent)"
    told = set(filter(None, browser.run(labels, "#empty .load")))
    browser.press("#login")
    shown = browser.run(labels, "#messages .load")
    assert len(told) == 6
    assert told <= {label.rpartition(": ")[2] for label in shown}


def test_the_failure_that_is_shown_is_marked(browser: Browser) -> None:
    browser.press("[data-scene=used]")
    browser.press("[data-scene=forged]")
    marked = browser.run("return [...document.querySelectorAll('[aria-current=true]')].map(it => it.dataset.scene)")
    assert marked == ["forged"]


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        (
            "en",
            [
                r"login requests from this address, \d\d:\d\d–\d\d:\d\d: 1",
                r"session of alice, encrypted, \d+ bytes, 7 days left",
                r"session_key of alice, encrypted, \d+ bytes",
            ],
        ),
        (
            "zh",
            [
                r"这个地址的登录请求数，\d\d:\d\d–\d\d:\d\d：1",
                r"alice 的会话，已加密，\d+ 字节，还有 7 天",
                r"alice 的 session_key，已加密，\d+ 字节",
            ],
        ),
    ],
    ids=["en", "zh"],
)
def test_redis_says_in_words_what_a_login_left_there(browser: Browser, language: str, forms: list[str]) -> None:
    browser.open(language=language)
    browser.press("#login")
    lines = browser.texts("#keys .held p")
    assert [len([line for line in lines if re.fullmatch(form, line)]) for form in forms] == [1, 1, 1]
    assert len(lines) == 3


def test_redis_names_no_user_whose_token_the_page_has_not_seen(browser: Browser, sandbox: Sandbox) -> None:
    """Another client has logged in."""
    log_in(sandbox, "carol")
    browser.driver.refresh()
    browser.settle()
    assert any(line.startswith("session of a user, encrypted") for line in browser.texts("#keys .held p"))


def log_in(sandbox: Sandbox, user: str) -> str:
    """Return the token of a login that the page does not see."""
    code = requests.post(f"{sandbox.url}/sandbox/wx.login", json={"user": user}, timeout=5).json()["code"]
    token: str = requests.post(f"{sandbox.url}/login", json={"code": code}, timeout=5).json()["token"]
    return token


def counts(browser: Browser) -> dict[str, int]:
    """What each counter counts, and its sum over all windows."""
    found: dict[str, int] = {}
    for line in browser.texts("#keys .kind-l + .held p"):
        what, _, number = re.split(r", (\d\d:\d\d–\d\d:\d\d): ", line)
        found[what] = found.get(what, 0) + int(number)
    return found


def test_redis_says_what_each_counter_counts(browser: Browser, sandbox: Sandbox) -> None:
    """Requests that count for one of two counters tell them apart: of an unknown client, and of another user."""
    browser.press("[data-scene=number]")
    code = {"code": "none"}
    other = {"Authorization": f"Bearer {log_in(sandbox, 'carol')}"}
    requests.post(f"{sandbox.url}/phone", json=code, headers=other, timeout=5)
    browser.press("#tab-scan")
    browser.press("#ask")
    requests.post(f"{sandbox.url}/device_authorization", data={"client_id": "unknown"}, timeout=5)
    browser.press("[data-scene=guessed]")
    requests.get(f"{sandbox.url}/device/BBBBBBBB.png", timeout=5)
    for button in ("#tab-flow", "#tab-scan", "#ask"):
        browser.press(button)
    found = counts(browser)
    assert {what: found.get(what) for what in COUNTS} == COUNTS


#: After three requests for a code by the page, one by an unknown client, and eleven wrong codes, ten of one user.
COUNTS = {
    "requests for phone numbers from this address": 2,
    "requests for the phone number of alice": 1,
    "POST /device_authorization from this address": 4,
    "codes that websites asked for from this address": 3,
    "codes that all websites asked for": 3,
    "POST /token from this address": 3,
    "images asked for from this address": 3,
    "wrong codes from this address": 11,
    "wrong codes of guesser": 10,
}


def test_redis_shows_names_and_bytes_on_demand(browser: Browser) -> None:
    def shown() -> list[str]:
        return [line for line in browser.texts("#keys .kind-u ~ .raw, #keys .kind-u + .held .raw") if line]

    browser.press("#login")
    before = shown()
    browser.press("#bytes")
    raw = shown()
    browser.press("#bytes")
    assert (before, shown(), len(raw)) == ([], [], 3)
    forms = (r"\S{22}( [0-9a-f]{8}){6} …", r"k( [0-9a-f]{8}){6} …", r"wxa:\{\S{22}\} hash")
    assert [len([line for line in raw if re.fullmatch(form, line)]) for form in forms] == [1, 1, 1]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_lesson_leads_to_a_page_of_the_documentation(browser: Browser, language: str) -> None:
    browser.open(language=language)
    named = []
    for button in ("#login", "[data-scene=forged]", "[data-scene=number]", "#tab-scan", "#ask", "[data-scene=fast]"):
        browser.press(button)
        if button != "#tab-scan":
            named.append(browser.text("#lesson-page"))
            assert links_nowhere([browser.run("return document.getElementById('lesson-page').href")]) == []
    end = ".zh-CN.md" if language == "zh" else ".md"
    pages = ["mini-program", "errors", "user-data", "scan-login", "scan-login"]
    assert named == [f"docs/{page}{end}" for page in pages]


def links_nowhere(links: list[str]) -> list[str]:
    """Return those of the links whose page or heading is not there."""

    def leads(link: str) -> bool:
        page, _, heading = unquote(link).partition("#")
        answer = requests.get(page, timeout=5)
        return answer.ok and (not heading or f'id="{heading}"' in answer.text)

    return [link for link in links if not leads(link)]


#: The scenes, and for each language the address of each scene's page.
ADDRESSES = """
const [done] = [...arguments].slice(-1)
const scenes = [...document.querySelectorAll('[data-scene]')].map((it) => it.dataset.scene)
scenes.push('login', 'whoami', 'logout', 'offer')
const [{ PAGES }, { TEXT }] = await Promise.all(['diagram', 'text'].map((it) => import(`./sandbox/page/${it}.js`)))
const address = (text) => (scene) => new URL(`sandbox/docs/${text[`page.${PAGES[scene]}`]}`, document.baseURI).href
done([scenes, Object.values(TEXT).map((text) => scenes.map(address(text)))])
"""


def test_each_scene_leads_to_a_page_and_a_heading_that_exist(browser: Browser) -> None:
    """In both languages."""
    scenes, (english, chinese) = browser.driver.execute_async_script(ADDRESSES)
    assert len(scenes) > 20
    assert links_nowhere([*english, *chinese]) == []
    assert {".zh-CN." in link for link in english} == {False}
    assert {".zh-CN." in link for link in chinese} == {True}


def test_redis_can_be_emptied_and_the_session_ends(browser: Browser) -> None:
    browser.press("#login")
    browser.press("#empty-redis")
    held = browser.text("#keys")
    browser.press("#whoami")
    assert (held, problem(browser)) == ("Empty.", "401 token_invalid")


def test_the_whole_token_can_be_copied(browser: Browser) -> None:
    """The phone shows its beginning and its end."""
    before = browser.text("#copy-token")
    browser.press("#login")
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    browser.press("#copy-token")
    beginning, end = browser.text("#pocket-token").split("…")
    copied = browser.run("return window.copied")
    assert (before, copied, browser.text("#copy-token")) == (
        "",
        browser.run("return localStorage['wxauth token']"),
        "Copied",
    )
    assert (copied.startswith(beginning), copied.endswith(end)) == (True, True)


@pytest.mark.parametrize(
    ("tab", "scene", "line"),
    [
        ("flow", "#login", "await auth.login()"),
        ("flow", "[data-scene=number]", "await auth.phone(detail.code)"),
        ("scan", "#ask", "await scanLogin("),
    ],
)
def test_the_code_tab_shows_the_lines_of_the_scene(browser: Browser, tab: str, scene: str, line: str) -> None:
    """Before the first scene it shows none."""
    browser.press("#tab-code")
    before = browser.text("#happened")
    browser.press(f"#tab-{tab}")
    browser.press(scene)
    browser.press("#tab-code")
    assert (before, line in browser.text("#happened pre")) == ("", True)


LINES = """
const covered = [...document.querySelectorAll('[data-lines]')]
const found = covered.map((it) => [it.dataset.lines.split(' '), it.content.textContent])
return [[...document.querySelectorAll('[data-scene]')].map((it) => it.dataset.scene), found]
"""


def test_each_failure_has_lines_that_call_a_function_of_a_client(browser: Browser, tmp_path: Path) -> None:
    """The clients are those in examples/. Node accepts the lines."""
    examples = ROOT / "examples"
    clients = [(examples / name).read_text() for name in ("miniprogram/wxauth.d.ts", "website/wxauth-web.js")]
    scenes, found = browser.run(LINES)
    lines = [text for _, text in found]
    (file := tmp_path / "lines.mjs").write_text("\n".join(f"{{\n{text}}}" for text in lines))
    called = set(re.findall(r"(?:auth\.|await )(\w+)\(", "\n".join(lines)))
    assert set(scenes) - {scene for covered, _ in found for scene in covered} == set()
    assert called >= {"login", "request", "logout", "phone", "userData", "scanLogin", "approve"}
    assert [name for name in called if not re.search(rf"\b{name}[(<]", "".join(clients))] == []
    assert subprocess.run([program("node"), "--check", file], check=False, timeout=30).returncode == 0


def test_an_opened_message_shows_its_bytes(browser: Browser) -> None:
    browser.press("#login")
    browser.press(".message:nth-child(4) > .row")
    assert re.fullmatch(r"\d+ B out, \d+ B back", browser.text(".opened .measured"))


#: The height of the phone, the place of the failures below the top of the phone, and whether the window shows them.
LAYOUT = """
const at = (it) => document.querySelector(it).getBoundingClientRect()
const [phone, failures] = [at('.device'), at('.breakage > [data-of]:not([hidden])')]
return [Math.round(phone.height), Math.round(failures.top - phone.top), failures.bottom <= innerHeight]
"""
#: Whether the window shows the lesson and the last message, between the bars at its top and at its bottom.
IN_VIEW = """
const at = (it) => document.querySelector(it)
const sheet = getComputedStyle(at('.sheet')).position === 'fixed'
const bar = sheet ? at('.sheet').getBoundingClientRect().top : innerHeight
const [lesson, last] = ['#lesson', '.message:last-child'].map(it => at(it).getBoundingClientRect())
return [lesson, last].map(({ top, bottom }) => top >= 0 && bottom <= bar)
"""
#: The first visible button of the phone is in the window.
BUTTON_IN_VIEW = """
const { top, bottom } = document.querySelector('#phone-buttons button:not([hidden])').getBoundingClientRect()
return top >= 0 && bottom <= innerHeight
"""


def test_nothing_moves_in_a_low_window_when_the_phones_show_another_state(browser: Browser) -> None:
    browser.open(width=1366, height=650)
    seen = []
    scans = ("#tab-scan", "#ask", "#scan", "[data-scene=late]", "[data-scene=guessed]")
    for button in ("#login", "[data-scene=gone]", "[data-scene=second]", "#cure", *scans):
        browser.press(button)
        seen.append(browser.run(LAYOUT))
    assert seen == [[*seen[0][:2], True]] * 9


#: Whether the title of the scene is beside the laptop or below it. In a narrow window it scrolls behind the laptop.
APART = """
const [laptop, heading] = ['.lid', '.heading'].map((it) => document.querySelector(it).getBoundingClientRect())
return heading.left >= laptop.right || heading.top >= laptop.bottom
"""


@pytest.mark.parametrize("width", [1080, 1366])
def test_the_title_of_a_scene_does_not_cover_the_laptop(browser: Browser, width: int) -> None:
    """With and without the lesson."""
    browser.open(width=width, height=844)
    seen = []
    for button in ("#tab-scan", "#ask"):
        browser.press(button)
        seen.append(browser.run(APART))
    assert seen == [True, True]


#: Whether the window shows the whole story above the bar of the phone.
STORY_IN_VIEW = """
const at = (it) => document.querySelector(it).getBoundingClientRect()
const [first, last] = [at('.outline li'), at('.outline li:last-child')]
return first.top >= 0 && last.height > 0 && last.bottom <= Math.min(at('.sheet').top || innerHeight, innerHeight)
"""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_phone_sized_window_shows_the_whole_story_at_first_sight(browser: Browser, language: str) -> None:
    browser.open(language=language, width=390, height=844)
    assert browser.run(STORY_IN_VIEW)


#: Whether the window shows the first message below the row of the actors.
FIRST_IN_VIEW = """
const at = (it) => document.querySelector(it).getBoundingClientRect()
return at('.message').top >= at('.actors').bottom && at('.message').bottom <= innerHeight
"""


@pytest.mark.parametrize(("width", "height"), [(1366, 650), (768, 1024), (390, 844)])
def test_a_short_scene_after_a_long_one_is_in_view_from_its_first_message(
    browser: Browser, width: int, height: int
) -> None:
    browser.open(width=width, height=height)
    browser.press("[data-scene=used]")
    browser.press("[data-scene=gone]")
    assert browser.run(FIRST_IN_VIEW)


#: The texts of the checks before a call to WeChat that are wider or higher than their boxes.
CUT = """
const texts = [...document.querySelectorAll('.minor .told')]
const cut = texts.filter(it => it.scrollWidth > it.clientWidth || it.scrollHeight > it.clientHeight)
return [texts.length > 0, cut.map(it => it.textContent)]
"""


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [390, 768, 1080, 1366])
def test_the_text_of_a_check_before_a_call_to_wechat_is_shown_whole(
    browser: Browser, width: int, language: str
) -> None:
    browser.open(language=language, width=width)
    seen = []
    for button in ("#login", "[data-scene=number]", "#tab-scan", "#ask"):
        browser.press(button)
        seen.append(browser.run(CUT))
    assert seen == [[True, []], [True, []], [False, []], [True, []]]


@pytest.mark.parametrize(
    ("scene", "failed"), [("used", ["errcode 40163", "code_used"]), ("gone", ["connect ✕", "unavailable"])]
)
def test_only_answers_that_failed_are_red(browser: Browser, scene: str, failed: list[str]) -> None:
    browser.press(f"[data-scene={scene}]")
    labels = "return [...document.querySelectorAll('.load')].filter(it => getComputedStyle(it).fill === arguments[0])"
    red = browser.run("return getComputedStyle(document.querySelector('.wrong .title')).color")
    assert [label.text for label in browser.run(labels, red)] == failed


HEIGHTS = "return [...document.querySelectorAll('.message')].map(it => it.offsetHeight)"


def test_a_message_takes_at_most_60_pixels(browser: Browser) -> None:
    """A check before a call to WeChat takes less."""
    browser.open(width=1366, height=650)
    browser.press("#login")
    heights = browser.run(HEIGHTS)
    assert [height <= 60 for height in heights] == [True] * 6
    assert heights[2] < 40


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_message_of_a_phone_sized_window_takes_at_most_90_pixels(browser: Browser, language: str) -> None:
    """Those with one arrow take less."""
    browser.open(language=language, width=390, height=844)
    browser.press("#login")
    heights = browser.run(HEIGHTS)
    assert [height for height in heights if height > 90] == []
    assert [heights[place] <= 75 for place in (1, 2, 5)] == [True] * 3


#: How far the window is scrolled, and the parts that it cuts.
CUT_BY_FOLD = """
const parts = ['.device', '.breakage', '.outline li:last-child', '.message:last-child', '#lesson:not([hidden])']
const found = parts.map(it => document.querySelector(it)).filter(it => it?.checkVisibility())
return [scrollY, found.filter(it => it.getBoundingClientRect().bottom > innerHeight).map(it => it.className)]
"""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_low_window_shows_the_story_and_a_login_without_scrolling(browser: Browser, language: str) -> None:
    browser.open(language=language, width=1366, height=650)
    before = browser.run(CUT_BY_FOLD)
    browser.press("#login")
    assert (before, browser.run(CUT_BY_FOLD)) == ([0, []], [0, []])


#: Pixels between the tabs and the title, and between the lesson and the end of the window.
GAPS = """
const at = (it) => document.querySelector(it).getBoundingClientRect()
return [at('.heading').top - at('.tabs').bottom, innerHeight - at('#lesson').bottom]
"""


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [390, 768])
def test_title_and_lesson_keep_away_from_the_tabs_and_the_end_of_a_narrow_window(
    browser: Browser, width: int, language: str
) -> None:
    browser.open(language=language, width=width, height=1024)
    seen = {}
    for button in ("#login", "[data-scene=busy]", "[data-scene=second]"):
        browser.press(button)
        seen[button] = browser.run(GAPS)
    assert {button: gaps for button, gaps in seen.items() if not all(gap >= 10 for gap in gaps)} == {}


#: The part of the page that has the focus.
FOCUSED_PART = """
const parts = { tabs: '.tabs', messages: '#messages', failures: '.breakage', phone: '.sheet' }
return Object.keys(parts).find(it => document.activeElement.closest(parts[it])) ?? ''
"""


def test_the_tab_key_follows_the_eye_in_a_phone_sized_window(browser: Browser) -> None:
    """The messages come before the failures."""
    browser.open(width=390, height=844)
    browser.press("#login")
    browser.run("document.getElementById('theme').focus()")
    order: list[str] = []
    while "phone" not in order and len(order) < 30:
        browser.type(Keys.TAB)
        order.append(browser.run(FOCUSED_PART))
    assert [part for part in dict.fromkeys(order) if part] == ["tabs", "messages", "failures", "phone"]


@pytest.mark.parametrize(("width", "height"), [(1366, 650), (390, 844)])
def test_the_lesson_and_the_last_message_are_in_view_after_each_scene(
    browser: Browser, width: int, height: int
) -> None:
    browser.open(width=width, height=height)
    seen = {}
    scans = ("#ask", "#scan", "#approve", "[data-scene=denied]", "[data-scene=guessed]")
    for button in ("#login", "#whoami", "[data-scene=gone]", "[data-scene=second]", "#cure", "#tab-scan", *scans):
        browser.press(button)
        if button != "#tab-scan":
            seen[button] = browser.run(IN_VIEW)
    assert [button for button, shown in seen.items() if shown != [True, True]] == []


def test_the_button_of_a_phone_sized_window_is_always_in_view(browser: Browser) -> None:
    """Also at the top and at the end of the page."""
    browser.open(width=390, height=844)
    seen = {"start": browser.run(BUTTON_IN_VIEW)}
    for button in ("#login", "[data-scene=forged]", "#cure", "#tab-scan", "#ask", "#scan"):
        browser.press(button)
        if button != "#tab-scan":
            seen[button] = browser.run(BUTTON_IN_VIEW)
    browser.run("scrollTo(0, 0)")
    seen["top"] = browser.run(BUTTON_IN_VIEW)
    browser.run("scrollTo(0, document.body.scrollHeight)")
    seen["end"] = browser.run(BUTTON_IN_VIEW)
    assert seen == dict.fromkeys(seen, True)


#: The labels that are wider than their arrows.
TOO_LONG = """
const labels = [...document.querySelectorAll('.load')].filter(it => it.checkVisibility())
const arrow = (it) => it.parentElement.querySelector('.out, .back').getBoundingClientRect()
const long = labels.filter(it => it.getBoundingClientRect().width > arrow(it).width + 11)
return [labels.length > 0, long.map(it => it.textContent)]
"""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_labels_fit_their_arrows(browser: Browser, width: int) -> None:
    """Their outlines are 11 px wider. Also after the window has another width."""
    browser.open(width=1440 - width, height=844)
    seen = []
    for button in ("#tab-flow", "#login", "[data-scene=gone]", "#tab-scan", "#ask", "[data-scene=late]"):
        browser.press(button)
        browser.resize(width, 844)
        seen.append(browser.run(TOO_LONG))
    assert seen == [[True, []]] * 6


@pytest.mark.parametrize(
    ("link", "title"),
    [("gone", "Redis is down"), ("late", "The code has expired"), ("scan", "How a website logs in by scanning")],
)
def test_a_link_opens_its_scene(browser: Browser, link: str, title: str) -> None:
    browser.driver.get("about:blank")
    browser.driver.get(f"{browser.url}#{link}")
    browser.settle()
    assert browser.text("#scene-title").casefold() == title.casefold()


def test_a_link_that_names_no_scene_opens_the_page(browser: Browser) -> None:
    browser.driver.get("about:blank")
    browser.driver.get(f'{browser.url}#"]no scene')
    browser.settle()
    assert browser.text("#scene-title") == "How a mini program logs in"


def test_the_address_names_the_failure_that_is_shown(browser: Browser) -> None:
    browser.press("[data-scene=forged]")
    assert browser.driver.current_url == f"{browser.url}#forged"


@pytest.mark.parametrize(
    ("tab", "button", "message", "name"),
    [("flow", "#login", 2, "code_used"), ("flow", "#whoami", 1, "openid"), ("scan", "#ask", 1, "user_code")],
)
def test_the_curl_command_of_a_message_sends_its_request(
    browser: Browser, tab: str, button: str, message: int, name: str
) -> None:
    """A code is used by then."""
    browser.press("#login")
    browser.press(f"#tab-{tab}")
    if button != "#login":
        browser.press(button)
    browser.run(f"document.querySelectorAll('.message')[{message - 1}].firstChild.click()")
    command = shlex.split(browser.texts(".opened pre")[1])
    answer = subprocess.run([program("curl"), "-s", *command[1:]], capture_output=True, check=True, timeout=30)
    assert name in answer.stdout.decode()


# --- The login of a website by scanning


#: Whether the canvas shows the modules of a QR code, whose rows come as strings of 0 and 1.
CANVAS_SHOWS = """
const canvas = document.getElementById('code-image')
const scale = canvas.width / arguments[0].length
const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
const dark = (x, y) => data[4 * (Math.floor((y + .5) * scale) * canvas.width + Math.floor((x + .5) * scale))] < 128
return arguments[0].every((row, y) => [...row].every((bit, x) => dark(x, y) === (bit === '1')))
"""
ASKED = ["POST /device_authorization", "Redis", "200 OK"]
POLLED = ["POST /token", "Redis"]


@pytest.fixture
def website(browser: Browser) -> Browser:
    """The page with the laptop."""
    browser.press("#tab-scan")
    return browser


def laptop(browser: Browser) -> tuple[str, str]:
    return browser.text("#laptop-who"), browser.text("#laptop-told")


def test_the_laptop_shows_an_image_of_its_user_code(website: Browser) -> None:
    """The website has polled once."""
    website.press("#ask")
    code = website.text("#user-code")
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", code)
    modules = segno.make(code.replace("-", ""), micro=False).matrix_iter(border=4)
    assert website.run(CANVAS_SHOWS, ["".join(map(str, row)) for row in modules])
    assert titles(website)[:3] == ASKED
    assert titles(website)[-3:] == [*POLLED, "400 authorization_pending"]


def test_the_phone_asks_before_a_website_is_logged_in(website: Browser) -> None:
    """It shows the code, who asks, how long ago, and from which network (RFC 8628, 5.4)."""
    website.press("#ask")
    code = website.text("#user-code")
    website.press("#scan")
    assert website.text("#who") == "Log in on “shop.example”?"
    form = rf"Code {code}, \d+ s ago, network 127\.0\.0\.0/24: is it on your own screen\?"
    assert re.fullmatch(form, website.text("#whoelse"))
    assert website.texts("#phone-buttons button:not([hidden])") == ["Log in", "Not me"]
    assert laptop(website)[0] == "Scan with WeChat"


def test_a_scan_logs_the_website_in_as_the_user_of_the_phone(website: Browser) -> None:
    for button in ("#ask", "#scan", "#approve"):
        website.press(button)
    who, openid = laptop(website)
    assert titles(website)[-6:] == [*POLLED, "200 OK", "GET /session", "Redis", "200 OK"]
    website.press("#tab-flow")
    website.press("#whoami")
    assert (who, openid in website.text("#whoelse")) == ("Logged in", True)


def test_not_me_leaves_the_website_logged_out(website: Browser) -> None:
    for button in ("#ask", "#scan", "#deny"):
        website.press(button)
    assert laptop(website)[0] == "Not logged in"
    assert (website.text("#who"), titles(website)[-1]) == ("Denied", "400 access_denied")


#: For each failure: the laptop, the last answer, and what the second phone shows.
SCAN_FAILURES = {
    "denied": ("Not logged in", "400 access_denied", ""),
    "late": ("Not logged in", "400 expired_token", ""),
    "fast": ("Scan with WeChat", "400 slow_down", ""),
    "both": ("Logged in", "200 OK", "This code is no longer good."),
    "guessed": ("Scan with WeChat", "429 rate_limited", "Too many wrong codes."),
}


@pytest.mark.parametrize(("scene", "expected"), SCAN_FAILURES.items(), ids=SCAN_FAILURES)
def test_a_failure_of_a_scan_login_is_shown(website: Browser, scene: str, expected: tuple[str, ...]) -> None:
    website.press(f"[data-scene={scene}]")
    assert (laptop(website)[0], titles(website)[-1], website.text("#other-told")) == expected
    assert website.text("#lesson-told") != ""


def test_a_phone_that_scans_an_expired_code_is_told(website: Browser) -> None:
    website.press("[data-scene=late]")
    assert (problem(website), website.text("#problem-told")) == ("404 not_found", "This code is no longer good.")


def test_after_slow_down_the_website_waits_longer_and_is_logged_in(website: Browser) -> None:
    """5 s are added to the interval of 2 s."""
    website.press("[data-scene=fast]")
    website.press("#scan")
    website.press("#approve")
    waited = re.search(r"its interval is over: (\d+) s", website.texts(".aside")[-1])
    assert waited
    assert 4 <= int(waited[1]) <= 7
    assert laptop(website)[0] == "Logged in"


def test_redis_holds_a_hash_of_the_device_code_and_says_so(website: Browser) -> None:
    """It holds neither the device_code nor the user_code."""
    website.press("#ask")
    website.run("document.querySelectorAll('.message')[2].firstChild.click()")
    answer = json.loads(website.texts(".opened pre")[0].split("\n\n", 1)[1])
    website.press("#scan")
    website.press("#approve")
    shown = website.text("#redis-name ~ #keys")
    assert "hash of the device_code, " in shown
    assert "website: shop.example" in shown
    assert "state: used" in shown
    assert [name for name in ("device_code", "user_code") if answer[name] in shown] == []


def test_after_its_session_has_ended_a_phone_logs_in_and_scans_again(website: Browser) -> None:
    """The website still waits."""
    website.press("#ask")
    website.press("#scan")
    headers = {"Authorization": "Bearer " + website.run("return localStorage['wxauth token']")}
    requests.delete(f"{website.url}session", headers=headers, timeout=5).raise_for_status()
    website.press("#approve")
    assert (problem(website), laptop(website)[0]) == ("401 token_invalid", "Scan with WeChat")
    for button in ("#cure", "#scan", "#approve"):
        website.press(button)
    assert laptop(website)[0] == "Logged in"


def test_a_website_that_the_service_does_not_know_is_shown_the_variable(browser: Browser) -> None:
    """WXAUTH_PUBLIC_CLIENTS names other clients. The challenge of the 401 opens no dialog."""
    with Sandbox(WXAUTH_PUBLIC_CLIENTS="console") as other:
        browser.driver.get(f"{other.url}/")
        browser.settle()
        browser.press("#tab-scan")
        browser.press("#ask")
        assert "WXAUTH_PUBLIC_CLIENTS" in laptop(browser)[1]
        assert titles(browser)[-1] == "401 invalid_client"


def test_a_website_is_logged_in_with_the_keyboard(website: Browser) -> None:
    """The focus moves from the laptop's button to that of the phone."""
    website.run("document.getElementById('ask').focus()")
    for _ in range(3):
        website.type(Keys.ENTER)
        website.settle()
    assert laptop(website)[0] == "Logged in"


def test_a_lost_connection_is_shown_without_an_action_and_keeps_the_token(browser: Browser) -> None:
    browser.press("#login")
    token = browser.text("#pocket-token")
    browser.set_offline(True)
    browser.press("#whoami")
    browser.set_offline(False)
    assert (problem(browser), browser.text("#problem-action")) == ("unreachable", "")
    assert browser.text("#pocket-token") == token


def test_login_works_with_the_keyboard(browser: Browser) -> None:
    """The focus moves to the next button."""
    for _ in range(10):
        browser.type(Keys.TAB)
        if browser.focused() == "login":
            break
    browser.type(Keys.ENTER)
    browser.settle()
    assert (browser.text("#who"), browser.focused()) == ("Logged in", "whoami")


def test_arrow_keys_select_tabs(browser: Browser) -> None:
    """As in the ARIA pattern, the focus follows the selection."""
    browser.run("document.getElementById('tab-scan').focus()")
    browser.type(Keys.ARROW_RIGHT)
    there = (browser.focused(), browser.text("#panel-flow"), bool(browser.text("#panel-code")))
    browser.type(Keys.ARROW_RIGHT)
    assert (there, browser.focused()) == (("tab-code", "", True), "tab-flow")


def test_the_snippets_contain_the_address_of_the_page(browser: Browser, sandbox: Sandbox) -> None:
    """The mini program can have another address. nginx is for another service: the sandbox refuses proxies."""
    browser.press("#tab-code")
    assert f"create({{ baseURL: '{sandbox.url}' }})" in browser.text("#panel-code")
    browser.run("address.focus(); address.select()")
    browser.type("https://login.example.com")
    assert "create({ baseURL: 'https://login.example.com' })" in browser.text("#panel-code")
    assert f"curl {sandbox.url}/login" in browser.text("#panel-code")
    assert "proxy_pass http://127.0.0.1:8000$uri" in browser.text("#panel-code")


def test_messages_are_animated_without_reduced_motion(browser: Browser) -> None:
    browser.media(motion="no-preference")
    browser.run("document.getElementById('login').click()")
    moving = browser.run("return document.body.classList.contains('running')")
    browser.settle()
    assert (moving, titles(browser)) == (True, LOGIN)


@pytest.mark.parametrize(("language", "expected"), [("zh-CN", "zh-CN"), ("zh-TW", "zh-CN"), ("de", "en")])
def test_the_page_uses_the_language_of_the_browser(browser: Browser, language: str, expected: str) -> None:
    """Chinese or English."""
    browser.speak(language)
    browser.open_first_time()
    browser.speak("en")
    assert browser.run("return document.documentElement.lang") == expected


def test_the_language_button_translates_the_whole_page(browser: Browser) -> None:
    """Also the messages that are already shown."""
    browser.press("#login")
    browser.press("#language")
    assert (browser.text("#who"), browser.text("#scene-title")) == ("已登录", "登录")


def test_the_page_uses_the_theme_of_the_browser_until_it_is_changed(browser: Browser) -> None:
    browser.media(scheme="dark")
    browser.open_first_time()
    colour = "return getComputedStyle(document.body).backgroundColor"
    dark = browser.run(colour)
    browser.press("#theme")
    assert (dark, browser.run(colour)) == ("rgb(15, 18, 17)", "rgb(243, 245, 241)")


KEYS_OF_TEXT = """
const [done] = [...arguments].slice(-1)
const places = (text) => Object.entries(text).map(([key, said]) => [key, (said.match(/\\{\\w+\\}/g) ?? []).sort()])
import('./sandbox/page/text.js').then(({ TEXT }) => done([places(TEXT.en), places(TEXT.zh)]))
"""


def test_no_text_has_the_name_of_another() -> None:
    """Of two texts of one name, JavaScript takes the second."""
    keys = re.findall(r"(?:^|, |  )(?:'([\w./&<>? =-]+)'|(\w+)): ['\"]", FILES["text.js"].read_text(), re.MULTILINE)
    names = [first or second for first, second in keys]
    assert len(names) > 600
    assert {name for name in names if names.count(name) != 2} == set()


def test_each_text_exists_in_both_languages(browser: Browser) -> None:
    """With the same placeholders. Each text that the page uses exists."""
    english, chinese = browser.driver.execute_async_script(KEYS_OF_TEXT)
    used = set(browser.run("return [...document.querySelectorAll('[data-t]')].map(it => it.dataset.t)"))
    assert english == chinese
    assert used <= {key for key, _ in english}


#: Return the keys on the page that have no text.
WITHOUT_TEXT = """
const [done] = [...arguments].slice(-1)
const keys = [...document.querySelectorAll('[data-t]')].map((it) => it.dataset.t)
import('./sandbox/page/text.js').then(({ TEXT }) => done(keys.filter((key) => !(key in TEXT.en))))
"""
#: Return each visible text with a contrast below 4.5 by the formula of WCAG 2.2.
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
#: Width, language and theme: each pair of values occurs.
LOOKS = [(360, "en", "light"), (360, "zh", "dark"), (1280, "en", "dark"), (1280, "zh", "light")]


@pytest.mark.parametrize(("width", "language", "theme"), LOOKS)
def test_the_page_has_enough_contrast_and_does_not_overflow(
    browser: Browser, width: int, language: str, theme: str
) -> None:
    browser.open(language=language, theme=theme, width=width)
    shown = browser.run("return [document.documentElement.lang.slice(0, 2), document.documentElement.dataset.theme]")
    assert shown == [language, theme]
    found: dict[str, Any] = {}
    scans = ("#tab-scan", "#ask", "#scan", "[data-scene=late]", "[data-scene=both]", "[data-scene=guessed]")
    for scene in ("#login", "[data-scene=gone]", "[data-scene=second]", "#cure", "#tab-code", *scans):
        browser.press(scene)
        browser.run("for (const row of document.querySelectorAll('.row[aria-expanded=false]')) row.click()")
        found[scene] = (browser.run(TOO_WIDE), browser.run(FAINT), browser.driver.execute_async_script(WITHOUT_TEXT))
    assert found == dict.fromkeys(found, (0, [], []))
