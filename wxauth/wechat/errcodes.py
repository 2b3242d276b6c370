"""What WeChat's errcodes mean: the error that each is raised as, what is wrong, and how to hint it. Asks nobody.

Sources: the official pages of the interfaces that `wechat` asks, and the list of global errcodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ..errors import (
    AccessTokenRefused,
    CodeInvalid,
    CodeUsed,
    SessionKeyStale,
    UserBlocked,
    WeChatBusy,
    WeChatError,
    WeChatRateLimited,
)

#: Errcodes that the user's phone, or this service itself, can do something about.
ERRCODES: Final[Mapping[int, type[WeChatError]]] = {
    -1: WeChatBusy,
    40029: CodeInvalid,
    40163: CodeUsed,
    40226: UserBlocked,
    45011: WeChatRateLimited,
    40001: AccessTokenRefused,
    40014: AccessTokenRefused,
    42001: AccessTokenRefused,
    87007: SessionKeyStale,
    87009: SessionKeyStale,
    40097: WeChatError,
    87008: WeChatError,
}


class Text(NamedTuple):
    """One sentence in both languages."""

    english: str
    chinese: str


#: What is wrong and how to hint it, for each errcode that is known here.
# fmt: off
MEANINGS: Final[Mapping[int, Text]] = {
    -1: Text(
        "WeChat is busy: try again, the code is not used up by this",
        "微信系统繁忙：稍后再试，code 并没有因此用掉",
    ),
    40029: Text(
        "WeChat does not know the code: call wx.login again, and compare the AppID in DevTools with WECHAT_APPID",
        "微信不认这个 code：重新调 wx.login，并核对开发者工具里的 AppID 和 WECHAT_APPID",
    ),
    40163: Text(
        "the code was exchanged before: call wx.login again, and never send a code twice",
        "code 已经换过了：重新调 wx.login，同一个 code 不要发两次",
    ),
    40226: Text(
        "WeChat holds the user for high-risk: there is no hint on this side",
        "微信判定是高风险用户：我们这边没办法",
    ),
    45011: Text(
        "the user logged in too often within a minute: log in when the token is gone, not on every page",
        "这个用户一分钟内登录太频繁：token 没了再登录，不要每个页面都登录",
    ),
    40001: Text(
        "WeChat takes neither this access token nor a new one: is the AppSecret right? Does another system reset it?",
        "微信不认这个 access_token，换新的也不认：核对 AppSecret，再查一下是不是有别的系统在重置它",
    ),
    40014: Text(
        "WeChat holds the access token for malformed: is WXAUTH_WECHAT_URL a relay that changes the query?",
        "微信认为 access_token 格式不对：查一下 WXAUTH_WECHAT_URL 的中转是不是改了查询参数",
    ),
    42001: Text(
        "the access token has expired, and WeChat gives no other: compare the clocks, then try again",
        "access_token 过期了，微信又不给新的：核对时钟，再试一次",
    ),
    87007: Text(
        "WeChat has no session_key for the user any more: call wx.login again",
        "微信那边已经没有这个用户的 session_key：重新调 wx.login",
    ),
    87009: Text(
        "WeChat has another session_key for the user than this server: call wx.login again",
        "微信那边的 session_key 和本服务器上的不一样：重新调 wx.login",
    ),
    40097: Text(
        "an argument is not as WeChat wants it: is WXAUTH_WECHAT_URL a relay that changes the query?",
        "参数不合要求：查一下 WXAUTH_WECHAT_URL 的中转是不是改了查询参数",
    ),
    87008: Text(
        "sig_method is not as WeChat wants it: is WXAUTH_WECHAT_URL a relay that changes the query?",
        "sig_method 不合要求：查一下 WXAUTH_WECHAT_URL 的中转是不是改了查询参数",
    ),
    40013: Text(
        "the AppID is wrong: compare WECHAT_APPID with the WeChat console",
        "AppID 不对：和微信公众平台核对 WECHAT_APPID",
    ),
    40125: Text(
        "the AppSecret is wrong, or was reset: copy it again from the WeChat console",
        "AppSecret 不对，或者被重置过：从微信公众平台重新复制一遍",
    ),
    40002: Text(
        "the grant_type did not arrive: is WXAUTH_WECHAT_URL a relay that drops the body?",
        "grant_type 没有送到：查一下 WXAUTH_WECHAT_URL 的中转是不是丢了请求体",
    ),
    43002: Text(
        "the POST arrived as a GET: is WXAUTH_WECHAT_URL a relay that follows redirects?",
        "POST 到了那边变成 GET：查一下 WXAUTH_WECHAT_URL 的中转是不是跟了重定向",
    ),
    89503: Text(
        "the console's administrator has to confirm calls from this server's address: ask for it, then try again",
        "本服务器 IP 的调用需要管理员确认：请管理员确认之后再试",
    ),
    89506: Text(
        "the console's administrator has refused this server's address: wait 24 hours, and clear it up meanwhile",
        "管理员拒绝了本服务器 IP 的调用：等 24 小时，其间先和管理员说清楚",
    ),
    89507: Text(
        "the console's administrator has refused this server's address: wait an hour, and clear it up meanwhile",
        "管理员拒绝了本服务器 IP 的调用：等 1 小时，其间先和管理员说清楚",
    ),
    40164: Text(
        "this server's address is not on the IP list of the WeChat console: add it, or switch the list off",
        "本服务器的出口 IP 不在微信公众平台的白名单里：加进去，或者关掉白名单",
    ),
    40243: Text(
        "the AppSecret is frozen: unfreeze it in the WeChat console",
        "AppSecret 被冻结：到微信公众平台解冻",
    ),
    41002: Text(
        "the AppID did not arrive: is WXAUTH_WECHAT_URL a relay that drops the query?",
        "AppID 没有送到：查一下 WXAUTH_WECHAT_URL 的中转是不是丢了查询参数",
    ),
    41004: Text(
        "the AppSecret did not arrive: is WXAUTH_WECHAT_URL a relay that drops the query?",
        "AppSecret 没有送到：查一下 WXAUTH_WECHAT_URL 的中转是不是丢了查询参数",
    ),
    45009: Text(
        "the quota of the day is used up: wait, or reset it in the WeChat console",
        "当天的额度用完了：等一等，或者到微信公众平台清零",
    ),
    50002: Text(
        "the mini program is restricted: see the notices in the WeChat console",
        "小程序受限：看微信公众平台的通知",
    ),
    50007: Text(
        "the mini program's account is frozen: see the notices in the WeChat console",
        "小程序账号被冻结：看微信公众平台的通知",
    ),
}
# fmt: on

#: Errcodes that only the operator can do something about, and what, as the log has it.
HINTS: Final[Mapping[int, str]] = {
    errcode: text.english for errcode, text in MEANINGS.items() if errcode not in ERRCODES
}
