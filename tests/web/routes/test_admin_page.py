"""The operator's page in a real browser, of the service as a host starts it, with a real Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests
from selenium.webdriver.common.alert import Alert

from tests.conftest import APPID
from tests.support.browser import Browser
from tests.support.clients import CLIENT_SECRET
from tests.support.servers import RedisServer, wait_until
from tests.support.service import Service, WeChatServer, environment
from tests.support.website import Website
from wxauth.web.admin.doctor import ACCEPTED
from wxauth.web.routes.admin import FILES
from wxauth.wechat.errcodes import MEANINGS

ADMIN = "console"
CLIENTS = {"WXAUTH_CLIENTS": f"{ADMIN}:{CLIENT_SECRET}", "WXAUTH_ADMIN_CLIENTS": ADMIN, "WXAUTH_PUBLIC_URL": ""}


@dataclass
class Console:
    """The page, the service behind it, and the phones of its users."""

    browser: Browser
    service: Service
    wechat: WeChatServer

    def openid(self, user: str) -> str:
        return self.wechat.fake.openid_of(APPID, user)

    def log_in(self, user: str, device: str = "") -> str:
        """Log in on a phone. Return the token."""
        code = self.wechat.fake.wx_login(user)
        answer = requests.post(f"{self.service.url}/login", json={"code": code, "device": device}, timeout=5)
        return str(answer.json()["token"])

    def status(self, token: str) -> tuple[int, str]:
        answer = requests.get(f"{self.service.url}/session", headers={"Authorization": token}, timeout=5)
        return answer.status_code, answer.json().get("code", "")

    def look_up(self, user: str) -> None:
        field = self.browser.driver.find_element("css selector", "#openid")
        field.clear()
        field.send_keys(self.openid(user))
        self.browser.press("#lookup button")
        self.wait_for("#shown", self.openid(user))

    def wait_for(self, selector: str, text: str) -> None:
        wait_until(lambda: self.browser.text(selector) == text, f"{text!r} in {selector}")

    def confirm(self, selector: str, *, accept: bool = True) -> str:
        """Press a button that asks. Return the question after the answer."""
        self.browser.driver.find_element("css selector", selector).click()
        alert: Alert = self.browser.driver.switch_to.alert
        question: str = alert.text
        alert.accept() if accept else alert.dismiss()
        return question


@pytest.fixture(scope="module")
def shared() -> Iterator[Console]:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer("--appendonly", "yes"))
        wechat = stack.enter_context(WeChatServer())
        service = stack.enter_context(Service(environment(redis.url, wechat.url, **CLIENTS)))
        browser = stack.enter_context(Browser(f"{service.url}/admin"))
        # A person types this into the window of the browser. Later requests have it too.
        browser.driver.get(service.url.replace("//", f"//{ADMIN}:{CLIENT_SECRET}@") + "/admin")
        yield Console(browser, service, wechat)


@pytest.fixture
def console(shared: Console) -> Iterator[Console]:
    """The page in English. After the test, the console has no error, and no request went to another host."""
    shared.browser.open()
    yield shared
    assert shared.browser.console_messages() == []
    assert {urlsplit(url).hostname for url in shared.browser.addresses() if url.startswith("http")} == {"127.0.0.1"}


def test_page_works_when_its_address_has_the_credential(shared: Console) -> None:
    shared.browser.driver.get(shared.service.url.replace("//", f"//{ADMIN}:{CLIENT_SECRET}@") + "/admin")
    shared.browser.settle()
    assert shared.browser.texts("#appid option") == [APPID]


def rows(console: Console) -> list[list[str]]:
    cells = (
        "return [...document.querySelectorAll('#sessions tr')].map(row => [...row.cells].map(it => it.textContent))"
    )
    found: list[list[str]] = console.browser.run(cells)
    return found


def test_look_up_shows_the_sessions_and_ends_one(console: Console) -> None:
    phone, tablet = console.log_in("anna", "iPhone"), console.log_in("anna", "iPad")
    console.look_up("anna")
    assert [row[:2] for row in rows(console)] == [["iPhone", "wx.login"], ["iPad", "wx.login"]]
    assert all(re.fullmatch(r"\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d", row[2]) for row in rows(console))
    assert console.browser.text("#state") == "not banned"
    console.browser.press("#sessions tr:first-child button")
    console.wait_for("#told", "The session has ended.")
    assert [row[0] for row in rows(console)] == ["iPad"]
    assert (console.status(phone), console.status(tablet)) == ((401, "session_revoked"), (200, ""))


def test_end_all_asks_before_it_ends_all_sessions(console: Console) -> None:
    tokens = [console.log_in("bert"), console.log_in("bert")]
    console.look_up("bert")
    assert "End all sessions" in console.confirm("#end-all", accept=False)
    assert {console.status(token)[0] for token in tokens} == {200}
    console.confirm("#end-all")
    console.wait_for("#told", "All sessions have ended.")
    assert rows(console) == []
    assert console.browser.text("#none").startswith("No live session.")
    assert {console.status(token) for token in tokens} == {(401, "session_revoked")}


def test_ban_ends_all_sessions_until_the_user_is_allowed_again(console: Console) -> None:
    token = console.log_in("cora")
    console.look_up("cora")
    console.confirm("#ban")
    console.wait_for("#state", "banned")
    assert console.browser.text("#told") == "The user is banned."
    assert console.status(token) == (403, "user_banned")
    console.browser.press("#unban")
    console.wait_for("#state", "not banned")
    assert console.browser.focused() == "openid"
    assert console.status(console.log_in("cora")) == (200, "")


def test_label_with_markup_is_shown_as_text(console: Console) -> None:
    markup = "<img src=x onerror='window.isHacked=1'>"
    console.log_in("dave", markup)
    console.look_up("dave")
    assert rows(console)[0][0] == markup
    assert console.browser.run("return window.isHacked ?? null") is None


def test_session_that_has_ended_meanwhile_is_said(console: Console) -> None:
    token = console.log_in("emil")
    console.look_up("emil")
    requests.delete(f"{console.service.url}/session", headers={"Authorization": token}, timeout=5)
    console.browser.press("#sessions button")
    console.wait_for("#told", "Not found: check the openid. The session may have ended already.")


def test_page_speaks_chinese_and_keeps_what_it_shows(console: Console) -> None:
    console.log_in("fred")
    console.look_up("fred")
    console.browser.press("#language")
    assert console.browser.text("h1") == "wxauth 管理页面"
    assert console.browser.run("return [document.title, document.documentElement.lang]") == [
        "wxauth 管理页面",
        "zh-CN",
    ]
    assert rows(console)[0][0] == "没有设备名"
    console.browser.press("#sessions button")
    console.wait_for("#told", "会话已结束。")
    assert "结束" not in console.browser.text("#health-name")
    console.browser.press("#language")
    console.wait_for("#told", "The session has ended.")


def test_each_text_exists_in_both_languages(console: Console) -> None:
    script = "const done = arguments[0]; import('/admin/page/text.js').then(({ TEXT }) => done(TEXT))"
    texts: dict[str, dict[str, str]] = console.browser.driver.execute_async_script(script)
    assert list(texts["en"]) == list(texts["zh"])
    used = set(re.findall(r'data-t="([^"]+)"', FILES["index.html"].read_text()))
    assert used <= set(texts["en"])
    terms = {"openid", "kind.login", "kind.ticket", "check.redis"}
    same = {name for name, text in texts["en"].items() if texts["zh"][name] == text}
    assert same == terms


CHECKS = """return [...document.querySelectorAll('#checks li')].map(row =>
  [...row.querySelectorAll('span, p')].map(it => it.textContent))"""


def checks(console: Console) -> dict[str, list[str]]:
    """Return status and text of each check by its name. A script sees all of one moment, unlike selenium."""
    return {name: [status, told] for status, name, told in console.browser.run(CHECKS)}


def logins(console: Console) -> int:
    script = """const blocks = [...document.querySelectorAll('#counters div')]
    const block = blocks.find(it => it.innerText.startsWith('Logins'))
    return Number(block.querySelector('dd')?.textContent ?? 0)"""
    return int(console.browser.run(script))


def test_health_is_that_of_the_installation(console: Console) -> None:
    found = checks(console)
    assert {status for status, _ in found.values()} == {"ok"}
    assert found["Redis"] == ["ok", "can store sessions"]
    assert found["WeChat"] == ["ok", f"{APPID}: {ACCEPTED.english}"]
    assert re.fullmatch(r"[0-9.]+ ms", found["Redis: latency"][1])
    console.browser.press("#language")
    found = checks(console)
    assert {status for status, _ in found.values()} == {"正常"}
    assert (found["Redis"][1], found["微信"][1]) == ("可以保存会话", f"{APPID}: {ACCEPTED.chinese}")


def test_counters_count_the_logins_at_all_workers(console: Console) -> None:
    before = logins(console)
    for _ in range(8):
        console.log_in("gina")
    console.browser.press("#refresh")
    wait_until(lambda: logins(console) == before + 8, "the count of the logins")


def test_refused_app_is_shown_with_a_hint_in_both_languages(console: Console) -> None:
    fake = console.wechat.fake
    console.wechat.fake = type(fake)({})
    try:
        console.browser.press("#check")
        wait_until(lambda: checks(console)["WeChat"][0] == "failure", "the failure")
    finally:
        console.wechat.fake = fake
    assert MEANINGS[40013].english in checks(console)["WeChat"][1]
    console.browser.press("#language")
    assert MEANINGS[40013].chinese in checks(console)["微信"][1]


FORM = """<!doctype html><title>Another site</title><form method="post" action="SERVICE/revoke">
<input name="token" value="TOKEN"></form><script>document.forms[0].submit()</script>"""

SCRIPT = """<!doctype html><title>Another site</title><script>
const header = { 'X-WXAuth-Admin': '1' }
const send = (path, init) => fetch('SERVICE' + path, { credentials: 'include', ...init })
const outcome = (path, init) => send(path, init).then(() => 'sent', () => 'refused')
Promise.all([
  outcome('USER/sessions', { method: 'DELETE' }),
  outcome('/adminUSER/sessions', { method: 'DELETE', headers: header }),
  outcome('/adminUSER/ban', { method: 'PUT', headers: header }),
  outcome('/admin/counters'),
  outcome('/revoke', { method: 'POST', mode: 'no-cors', body: new URLSearchParams({ token: 'TOKEN' }) }),
]).then((outcomes) => { window.outcomes = outcomes })
</script>"""


@pytest.fixture
def victim(shared: Console) -> Iterator[Console]:
    """The console, whose browser knows the credential, and which opens a page of another site next."""
    yield shared
    shared.browser.driver.get("about:blank")
    shared.browser.console_messages()
    shared.browser.addresses()


def refusals(console: Console) -> int:
    return console.service.output().count('"problem": "insufficient_scope"')


def test_form_of_another_site_does_not_end_a_session(victim: Console) -> None:
    """The browser adds the credential. The origin of the page is opaque, so its site is another."""
    token, before = victim.log_in("hugo"), refusals(victim)
    page = FORM.replace("SERVICE", victim.service.url).replace("TOKEN", token)
    victim.browser.driver.get(f"data:text/html,{quote(page)}")
    wait_until(lambda: "insufficient_scope" in victim.browser.text("body"), "the refusal")
    assert refusals(victim) == before + 1
    assert victim.status(token) == (200, "")


def test_script_of_another_site_changes_nothing_and_reads_nothing(victim: Console, tmp_path: Path) -> None:
    """Another port of a host is the same site. The browser adds the credential where no preflight is needed."""
    token, before = victim.log_in("hugo"), refusals(victim)
    page = SCRIPT.replace("SERVICE", victim.service.url).replace("TOKEN", token)
    (tmp_path / "index.html").write_text(page.replace("USER", f"/users/{APPID}/{victim.openid('hugo')}"))
    with Website(tmp_path) as website:
        victim.browser.driver.get(website.url)
        wait_until(lambda: bool(victim.browser.run("return window.outcomes ?? null")), "the outcomes")
        assert victim.browser.run("return outcomes") == [*["refused"] * 4, "sent"]
        victim.browser.driver.get("about:blank")
    wait_until(lambda: refusals(victim) == before + 2, "the refusals of the two requests without a preflight")
    assert victim.status(token) == (200, "")


FAR_RIGHT = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("width", "height"), [(1366, 650), (390, 844)])
def test_page_fits_and_has_no_barriers(console: Console, width: int, height: int, language: str, theme: str) -> None:
    """axe-core finds nothing, with a user who has a session and after one is banned."""
    console.browser.open(language=language, theme=theme, width=width, height=height)
    console.log_in("ines", "An iPhone with a long name, which the user has chosen without much thought")
    console.look_up("ines")
    assert (console.browser.run(FAR_RIGHT), console.browser.barriers()) == (0, [])
    console.confirm("#ban")
    wait_until(lambda: console.browser.run("return document.querySelector('#ban').hidden"), "the ban")
    assert (console.browser.run(FAR_RIGHT), console.browser.barriers()) == (0, [])
    console.browser.press("#unban")
    wait_until(lambda: console.browser.run("return document.querySelector('#unban').hidden"), "the end of the ban")
