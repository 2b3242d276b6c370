"""WeChat's errcodes: the exception for each, what is wrong, and what to do.

Sources: the official pages of the interfaces that `client` calls, and the official list of global errcodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from .. import errors

Errcodes = Mapping[int, type[errors.WeChatError]]

#: The exception for each errcode that is not for the operator.
ERRCODES: Final[Errcodes] = {
    -1: errors.WeChatBusy,
    40029: errors.CodeInvalid,
    40163: errors.CodeUsed,
    40226: errors.UserBlocked,
    45011: errors.WeChatRateLimited,
    40001: errors.AccessTokenRefused,
    40014: errors.AccessTokenRefused,
    42001: errors.AccessTokenRefused,
    87007: errors.SessionKeyStale,
    87009: errors.SessionKeyStale,
    40097: errors.WeChatError,
    87008: errors.WeChatError,
}
#: For a phone code, 40013 means that the code belongs to another mini program.
PHONE_ERRCODES: Final = {**ERRCODES, 40029: errors.PhoneCodeInvalid, 40013: errors.PhoneCodeInvalid}


class Text(NamedTuple):
    """One sentence in two languages."""

    english: str
    chinese: str


#: What is wrong and what to do, in the form "problem: action", for each known errcode.
# fmt: off
MEANINGS: Final[Mapping[int, Text]] = {
    -1: Text("WeChat is busy: try again, the code has not been used",
             "微信系统繁忙：请稍后重试，code 仍然有效"),
    40029: Text("the code is invalid: call wx.login again, and check that the AppID in DevTools is WECHAT_APPID",
                "code 无效：重新调用 wx.login，并检查开发者工具里的 AppID 与 WECHAT_APPID 是否一致"),
    40163: Text("the code has been used already: call wx.login again, and send each code only once",
                "code 已被使用：重新调用 wx.login，每个 code 只能提交一次"),
    40226: Text("WeChat has blocked this high-risk user: the service cannot change that",
                "微信拦截了该高风险用户的登录：本服务无法处理"),
    45011: Text("the user has logged in too often in a minute: log in when the token is refused, not on every page",
                "该用户一分钟内登录次数过多：token 失效后再登录，不要在每个页面都登录"),
    40013: Text("the AppID is wrong: compare WECHAT_APPID with the WeChat console",
                "AppID 错误：与微信公众平台核对 WECHAT_APPID"),
    40125: Text("the AppSecret is wrong, or has been reset: copy it again from the WeChat console",
                "AppSecret 错误，或已被重置：从微信公众平台重新复制"),
    40164: Text("this server's address is not on the IP list of the WeChat console: add it, disable the list,"
                " or send through a proxy with a fixed address, WXAUTH_WECHAT_PROXY",
                "本服务器的出口 IP 不在微信公众平台的 IP 白名单中：添加该 IP，或关闭白名单，"
                "或用 WXAUTH_WECHAT_PROXY 通过固定 IP 的代理发送请求"),
    40243: Text("the AppSecret is frozen: unfreeze it in the WeChat console",
                "AppSecret 已被冻结：在微信公众平台解冻"),
    41030: Text("the page is not in the released version of the mini program: compare WXAUTH_SCAN_PAGE with app.json",
                "小程序正式版中没有该页面：与 app.json 核对 WXAUTH_SCAN_PAGE"),
    45009: Text("the quota of the day is used up: wait, or reset it in the WeChat console",
                "当日调用额度已用完：等待额度恢复，或在微信公众平台清零"),
    **dict.fromkeys((40001, 42001), Text(
        "the access token is refused, and so is a new one: check AppSecret, clocks, and other systems that reset it",
        "当前和新获取的 access_token 均被拒绝：检查 AppSecret、服务器时间，以及是否有其他系统在重置它")),
    **dict.fromkeys((87007, 87009), Text(
        "WeChat has another session_key for this user, or none: call wx.login again",
        "微信没有该用户的 session_key，或与本服务器保存的不一致：重新调用 wx.login")),
    48001: Text("the mini program has no right to this interface: look at its interface permissions in the WeChat"
                " console; the phone number needs a verified company account",
                "小程序没有这个接口的权限：在微信公众平台查看接口权限；获取手机号要求已认证的企业主体"),
    **dict.fromkeys((40014, 40097, 87008, 40002, 43002, 41002, 41004, 41008, 47001), Text(
        "the request arrived changed: check whether a relay at WXAUTH_WECHAT_URL changes it",
        "请求内容被改动：检查 WXAUTH_WECHAT_URL 的中转服务是否修改了请求")),
    **dict.fromkeys((89503, 89506, 89507), Text(
        "the administrator must confirm calls from this server's address:"
        " ask them. After a refusal wait 24 hours (89506) or 1 hour (89507)",
        "本服务器 IP 的调用需要管理员确认：联系管理员。被拒绝之后等 24 小时（89506）或 1 小时（89507）")),
    **dict.fromkeys((50002, 50007), Text(
        "the mini program is restricted or frozen: read the notices in the WeChat console",
        "小程序已被限制或冻结：查看微信公众平台的通知")),
}
# fmt: on

#: For each errcode that only the operator can fix: the text for the log.
HINTS: Final = {errcode: text.english for errcode, text in MEANINGS.items() if errcode not in ERRCODES}
