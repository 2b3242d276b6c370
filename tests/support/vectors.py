"""The examples of WeChat's documentation, unchanged. The encrypted data is from 2016, the push from 2024."""

from __future__ import annotations

from typing import Final

from wxauth.models import Secret, User

#: From "decrypting open data": encrypted user data.
SEALED_FOR: Final = User("wx4f4bc4dec97d474b", "oGZUI0egBJY1zhBYw2KhdUfwVJJE")
SEALED_UNDER: Final = Secret("tiihtNczf5v6AKRyjwEUhQ==")
SEALED_AT: Final = 1477314187
IV: Final = "r7BXXKkLb8qrSNn05n0qiA=="
ENCRYPTED_DATA: Final = (
    "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4l"
    "GOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInN"
    "lxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/"
    "r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7Xjf"
    "hQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="
)
PLAINTEXT_SHA256: Final = "3237d8a5dbd413523c194882c7156544d8a06e2afcc97383cc300c17bd09391b"

#: From the same page: signed user data.
SIGNED_UNDER: Final = Secret("HyVFkGl5F5OQWJZZaNzBBg==")
SIGNATURE: Final = "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
RAW_DATA: Final = (
    '{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN",'
    '"avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtp'
    'ujxyzYsrztuuICqIM5ibXQ/0"}'
)

#: From "message push": the check of the URL, a message in plain mode, a message in safe mode.
PUSH_TOKEN: Final = Secret("AAAAA")
PUSH_AES_KEY: Final = Secret("A" * 43)
PUSH_APPID: Final = "wxba5fad812f8e6fb9"
ECHO_QUERY: Final = {
    "signature": "f464b24fc39322e44b38aa78f5edd27bd1441696",
    "echostr": "4375120948345356249",
    "timestamp": "1714036504",
    "nonce": "1514711492",
}
PLAIN_QUERY: Final = {
    "signature": "899cf89e464efb63f54ddac96b0a0a235f53aa78",
    "timestamp": "1714037059",
    "nonce": "486452656",
}
PLAIN_BODY: Final = (
    b'{"ToUserName": "gh_97417a04a28d", "FromUserName": "o9AgO5Kd5ggOC-bXrbNODIiE3bGY", "CreateTime": 1714037059,'
    b' "MsgType": "event", "Event": "debug_demo", "debug_str": "hello world"}'
)
SAFE_QUERY: Final = {
    "signature": "6c5c811b55cc85e0e1b54100749188c20beb3f5d",
    "timestamp": "1714112445",
    "nonce": "415670741",
    "openid": "o9AgO5Kd5ggOC-bXrbNODIiE3bGY",
    "encrypt_type": "aes",
    "msg_signature": "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3",
}
SAFE_ENCRYPT: Final = (
    "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsX"
    "UnnR8XGT740XgXZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajA"
    "sjLY2km32IIjdf8YL/P50F7mStwntrA2cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04="
)
