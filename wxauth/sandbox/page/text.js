// All texts of the page in two languages. Terms of HTTP, Redis and WeChat are not translated.

const EN = {
  playground: 'playground',
  tagline: 'A WeChat login, from wx.login to the token, shown with real requests. No AppID, no server, no network.',
  'theme.dark': 'Dark', 'theme.light': 'Light', language: '中文',
  tabs: 'What the right side shows', 'tab.flow': 'What happens', 'tab.code': 'The code',
  phone: 'A phone', 'phone.app': 'My mini program',
  'phone.login': 'Log in with WeChat', 'phone.whoami': 'Who am I?', 'phone.logout': 'Log out',
  'phone.nobody': 'Not logged in', 'phone.nobody.told': 'Press the button and watch the messages.',
  'phone.asking': 'One moment…', 'phone.asking.told': 'The messages appear in the order in which they were sent.',
  'phone.known': 'Logged in', 'phone.known.told': 'openid {openid} · {left} left', 'phone.known.bare': 'A token, good for {left}.',
  days: '{n} days', hours: '{n} hours', minutes: '{n} minutes',
  'pocket.token': 'token', 'pocket.none': 'none', 'pocket.session_key': 'stays on the server',
  'cure.login': 'Log in again', 'cure.ask': 'Log in on this phone', 'cure.retry': 'Wait {n} s, try again', 'cure.none': 'Close',
  breakage: 'What if …', 'breakage.hint': 'Cause an error, and see what a good client does.',
  'scene.login': 'Log in', 'scene.login.told': 'The code goes in, a token comes out. Open a message to see its HTTP.',
  'scene.whoami': 'Who am I?', 'scene.whoami.told': 'A request with the token. This is how every request of yours will look.',
  'scene.logout': 'Log out', 'scene.logout.told': 'This phone’s session ends at once, on every server.',
  'scene.used': 'a code is used twice', 'scene.used.told': 'The first answer is lost (this page drops it), and the phone sends the same code again.',
  'scene.expired': 'the token has expired', 'scene.expired.told': 'The session was not used for a week: its record in Redis has expired.',
  'scene.busy': 'WeChat is busy', 'scene.busy.told': 'WeChat answers errcode -1. The server sends three requests before it gives up.',
  'scene.blocked': 'WeChat blocks the user', 'scene.blocked.told': 'WeChat considers this account high-risk: errcode 40226.',
  'scene.gone': 'Redis is down', 'scene.gone.told': 'Redis can’t be reached. No user is logged out by this.',
  'scene.elsewhere': 'another phone logs me out', 'scene.elsewhere.told': 'A second phone of the same user ends all sessions but its own.',
  'scene.second': 'a second phone logs in', 'scene.second.told': 'One session for each user (WXAUTH_MAX_SESSIONS=1): a login on the second phone ends the session of the first.',
  'scene.two': 'two phones log in at once', 'scene.two.told': 'The same user, two phones, the same moment.',
  'scene.forged': 'a token is forged', 'scene.forged.told': 'One letter of the token is changed.',
  'scene.idle': 'The login, live', 'scene.idle.told': 'The diagram of WeChat’s own documentation, drawn by real requests.',
  empty: 'Press “Log in with WeChat” on the phone.',
  messages: 'Messages, in order',
  'actor.phone': 'Mini program', 'actor.server': 'Your server', 'actor.wechat': 'WeChat', 'actor.redis': 'Redis',
  'second': 'second phone',
  true: 'The requests of the browser and the calls of the server to WeChat and Redis are real, only shown more slowly. Times and bytes are measured. The sandbox simulates WeChat and Redis inside this process.',

  'ask.wx.login': 'The phone asks WeChat for a code. It works once, for five minutes.',
  'ask.POST /login': 'The phone sends the code to your server.',
  'ask.GET /session': 'The phone sends its token.',
  'ask.GET /sessions': 'The phone asks for the user’s sessions.',
  'ask.DELETE /session': 'The phone ends its session.',
  'ask.DELETE /sessions?keep=current': 'The second phone ends all sessions of this user but its own.',
  'answer.POST /login': 'An opaque token. The session_key stays on the server.',
  'answer.GET /session': 'The user of the token, and its remaining time.',
  'answer.GET /sessions': 'Each phone has its own session: there are {n}.',
  'answer.DELETE /session': 'Ended. The token is invalid from now on.',
  'answer.DELETE /sessions?keep=current': 'All other sessions of the user have ended.',
  'answer.lost': 'The user is logged in, but the answer is lost on the network: the phone never receives it.',
  'answer.code_used': 'WeChat exchanges a code once. Action: login.',
  'answer.token_invalid': 'No session has this token. Action: login.',
  'answer.token_invalid.unasked': 'The signature is invalid, so Redis is not queried. Action: login.',
  'answer.session_replaced': 'The user has logged in on another phone. Action: ask.',
  'answer.session_revoked': 'Another phone or the operator ended this session. Action: ask.',
  'answer.user_blocked': 'WeChat does not let this user in. Action: none.',
  'answer.wechat_busy': 'Three attempts, then a clear error. Action: retry.',
  'answer.store_unavailable': 'Not a 401: the session may still be valid. Action: retry.',
  'answer.store_unavailable.unasked': 'The circuit breaker is open: rejected at once, without a query to Redis. Action: retry.',
  'answer.other': 'Action: {action}.',
  'wechat.ok': 'Your server sends the code and the AppSecret to WeChat, and receives openid and session_key.',
  'wechat.-1': 'WeChat is too busy. The code is not used up.',
  'wechat.40163': 'This code was exchanged before.',
  'wechat.40226': 'WeChat considers this user high-risk.',
  'wechat.other': 'WeChat rejects the request.', 'wechat.silent': 'WeChat does not answer in time.',
  'redis.check': 'Before the code is used: the rate limit of this address, which also shows that Redis answers.',
  'redis.look': 'Your server reads from Redis.',
  'redis.store': 'The session is encrypted with a key derived from the token and our own key, and stored atomically.',
  'redis.read': 'The record of this token is read. Only the token can decrypt it.',
  'redis.absent': 'There is no valid record of this token.',
  'redis.ended': 'There is no record of this token any more, only the reason why its session ended.',
  'redis.end': 'The session is deleted atomically.',
  'redis.gone': 'Redis does not answer. The server tries one new connection, then stops.',
  'redis.trips': '{n} round trips', 'redis.trip': '1 round trip', 'redis.tries': '{n} tries',
  'bytes.body': '{n} B of body', 'bytes.bodies': 'bodies of {out} B and {back} B', 'bytes.both': '{out} B out, {back} B back', 'bytes.sent': '{n} B sent',

  'first.login': 'First, the phone logs in: POST /login → {status}', 'first.logout': 'First, the phone logs out: DELETE /session → {status}',
  'first.plug': 'First, the sandbox starts Redis again',
  'aside.one': 'The sandbox allows one session for each user → {status}',
  'aside.expire': 'A week passes: the sandbox expires the record → {status}',
  'aside.gone': 'The sandbox stops Redis for {n} seconds',
  'aside.wait': 'The phone waits {n} s, as Retry-After says',

  lesson: 'What a good client does',
  'lesson.login': 'Stores the token and sends it as Authorization: Bearer. wxauth.js does this for you.',
  'lesson.whoami': 'Sends the token with every request and follows the action of the answer. It logs in again only if the action is login.',
  'lesson.logout': 'Deletes its token. The server has already ended the session.',
  'lesson.two': 'Nothing. Each phone has its own token and its own session.',
  'lesson.code_used': 'Never sends a code twice. It calls wx.login for a new one and logs in again, once.',
  'lesson.token_invalid': 'Calls wx.login, logs in again once, and repeats the request. Expired and forged tokens get the same answer.',
  'lesson.session_replaced': 'Tells the user why and logs in only if the user asks for it: two phones that log in by themselves would log each other out again and again. wxauth.js calls onEnded.',
  'lesson.session_revoked': 'Tells the user why and logs in only if the user asks for it: this session was ended on purpose. wxauth.js calls onEnded.',
  'lesson.user_blocked': 'Tells the user, and does not try again: the action is none.',
  'lesson.wechat_busy': 'Waits as long as Retry-After says, then calls wx.login for a new code and tries again.',
  'lesson.store_unavailable': 'Keeps its token, waits as long as Retry-After says, and tries again. The user stays logged in.',
  'lesson.unreachable': 'Keeps its token, and tells the user that there is no connection.',
  'lesson.other': 'Follows the action of the problem.',

  'told.code_used': 'The login did not work.', 'told.token_invalid': 'The session is over.',
  'told.session_replaced': 'You logged in on another phone.', 'told.session_revoked': 'Another phone logged you out.',
  'told.user_blocked': 'WeChat does not let you in.', 'told.wechat_busy': 'WeChat is busy just now.',
  'told.store_unavailable': 'Busy now. You stay logged in.', 'told.unreachable': 'The sandbox does not answer. Is it still running?', 'told.other': 'This did not work.',

  'open.asked': 'Request', 'open.answered': 'Answer', 'open.said': 'Redis commands and replies',
  'open.holds': 'Content of Redis after it',
  'open.played': 'Simulated by the sandbox. On a real phone WeChat does this, and your server does not see it.',
  'open.dots': 'Dots replace the AppSecret and the session_key, which only the server and WeChat may know. The sandbox does not send them to this page.',
  'open.none': 'No answer.',

  redis: 'Content of Redis', 'redis.told': 'Encrypted bytes, each with a time limit: no token, no openid, no session_key. Only times, the number of logins from an address, and why sessions ended are not encrypted.',
  'redis.empty': 'Empty.', 'redis.back': 'Redis can’t be reached. It starts again in {n} s with all its data.', 'redis.plug': 'Start it now',
  'redis.more': 'and {n} more', 'redis.left': '{left} left',
  'kind.u': 'user', 'kind.b': 'ban', 'kind.l': 'counter', 'kind.p': 'probe', 'kind.other': 'other',
  's': '{n} s', 'field.session': 'session', 'field.k': 'session_key', 'field.p': 'previous session_key', 'field.r': 'why sessions ended',

  code: 'The code to copy', 'code.told': 'The mini program’s has your address filled in, the rest that of this sandbox. More is in the README and in deploy/.',
  'code.address': 'Your address', copy: 'Copy', copied: 'Copied',
  'code.mini': 'Mini program', 'code.mini.told': 'Put examples/miniprogram/wxauth.js beside it. WeChat requires HTTPS and a domain on its list; DevTools can switch this check off.',
  'code.flask': 'Flask', 'code.flask.told': 'Your own application, in the same environment as the service.',
  'code.nginx': 'nginx', 'code.nginx.told': 'In front of any other backend. This is the short form; use the complete deploy/nginx.conf in production.',
  'code.curl': 'By hand', 'code.curl.told': 'Three commands in place of the phone.',
  footer: 'The sandbox that make run starts listens on loopback only. It keeps all data in memory and loses it when it stops.',
}

const ZH = {
  playground: '演练场',
  tagline: '微信登录全过程：从 wx.login 到 token，展示真实的请求。不需要 AppID、服务器和网络。',
  'theme.dark': '深色', 'theme.light': '浅色', language: 'English',
  tabs: '右侧显示的内容', 'tab.flow': '发生了什么', 'tab.code': '代码',
  phone: '一部手机', 'phone.app': '我的小程序',
  'phone.login': '微信登录', 'phone.whoami': '我是谁？', 'phone.logout': '退出登录',
  'phone.nobody': '未登录', 'phone.nobody.told': '点击按钮，查看消息。',
  'phone.asking': '请稍候……', 'phone.asking.told': '消息按发送顺序依次显示。',
  'phone.known': '已登录', 'phone.known.told': 'openid {openid} · 还有 {left}', 'phone.known.bare': '拿到了 token，有效期 {left}。',
  days: '{n} 天', hours: '{n} 小时', minutes: '{n} 分钟',
  'pocket.token': 'token', 'pocket.none': '没有', 'pocket.session_key': '只保存在服务器上',
  'cure.login': '重新登录', 'cure.ask': '在这部手机登录', 'cure.retry': '等 {n} 秒再试', 'cure.none': '知道了',
  breakage: '如果……', 'breakage.hint': '制造一个故障，查看客户端应如何处理。',
  'scene.login': '登录', 'scene.login.told': '用 code 换取 token。点开一条消息，查看它的 HTTP。',
  'scene.whoami': '我是谁？', 'scene.whoami.told': '带 token 的请求。之后的每个请求都是这样。',
  'scene.logout': '退出登录', 'scene.logout.told': '这部手机的会话立刻结束，在所有服务器上都生效。',
  'scene.used': '同一个 code 用两次', 'scene.used.told': '第一次的响应丢失了（由本页面丢弃），手机又发送了同一个 code。',
  'scene.expired': 'token 过期了', 'scene.expired.told': '这个会话一周没有使用：Redis 里的记录已过期。',
  'scene.busy': '微信繁忙', 'scene.busy.told': '微信返回 errcode -1。服务器请求三次后放弃。',
  'scene.blocked': '用户被微信拦截', 'scene.blocked.told': '微信认为这个账号风险高：errcode 40226。',
  'scene.gone': 'Redis 不可用', 'scene.gone.told': '无法连接 Redis。用户不会因此退出登录。',
  'scene.elsewhere': '被另一部手机登出', 'scene.elsewhere.told': '同一用户的第二部手机结束其他所有会话。',
  'scene.second': '第二部手机登录', 'scene.second.told': '每个用户只能有一个会话（WXAUTH_MAX_SESSIONS=1）：第二部手机登录后，第一部的会话结束。',
  'scene.two': '两部手机同时登录', 'scene.two.told': '同一个用户，两部手机，同一时刻。',
  'scene.forged': '伪造的 token', 'scene.forged.told': 'token 里改了一个字母。',
  'scene.idle': '登录流程，实况', 'scene.idle.told': '微信官方文档中的流程图，由真实的请求绘制。',
  empty: '点击手机上的“微信登录”。',
  messages: '按顺序排列的消息',
  'actor.phone': '小程序', 'actor.server': '开发者服务器', 'actor.wechat': '微信服务器', 'actor.redis': 'Redis',
  'second': '第二部手机',
  true: '浏览器的请求、服务器对微信和 Redis 的调用都是真实的，只是放慢显示。时间和字节数是实测值。微信和 Redis 由沙箱在本进程内模拟。',

  'ask.wx.login': '手机向微信请求 code：只能使用一次，五分钟内有效。',
  'ask.POST /login': '手机把 code 发送给你的服务器。',
  'ask.GET /session': '手机发送 token。',
  'ask.GET /sessions': '手机查询这个用户的会话。',
  'ask.DELETE /session': '手机结束自己的会话。',
  'ask.DELETE /sessions?keep=current': '第二部手机结束这个用户的其他所有会话。',
  'answer.POST /login': '一个不透明的 token。session_key 留在服务器上。',
  'answer.GET /session': 'token 对应的用户，以及剩余有效期。',
  'answer.GET /sessions': '每部手机各有一个会话：共 {n} 个。',
  'answer.DELETE /session': '会话已结束，token 已失效。',
  'answer.DELETE /sessions?keep=current': '其他会话都已结束，只保留当前会话。',
  'answer.lost': '用户已登录，但响应在网络中丢失：手机没有收到。',
  'answer.code_used': '一个 code 只能换取一次。action：login。',
  'answer.token_invalid': '没有与这个 token 对应的有效会话。action：login。',
  'answer.token_invalid.unasked': '签名校验失败，不查询 Redis，直接拒绝。action：login。',
  'answer.session_replaced': '用户已在另一部手机登录。action：ask。',
  'answer.session_revoked': '另一部手机或运营方结束了这个会话。action：ask。',
  'answer.user_blocked': '微信拒绝了这个用户的登录。action：none。',
  'answer.wechat_busy': '请求三次后返回明确的错误。action：retry。',
  'answer.store_unavailable': '不是 401：会话可能仍然有效。action：retry。',
  'answer.store_unavailable.unasked': '熔断器已打开：不查询 Redis，立即拒绝。action：retry。',
  'answer.other': 'action：{action}。',
  'wechat.ok': '服务器把 code 和 AppSecret 发送给微信，得到 openid 和 session_key。',
  'wechat.-1': '微信系统繁忙，未处理。code 未被使用。',
  'wechat.40163': '这个 code 已被使用。',
  'wechat.40226': '微信认为这个用户风险高。',
  'wechat.other': '微信拒绝了请求。', 'wechat.silent': '微信没有及时响应。',
  'redis.check': '使用 code 之前：检查这个地址的登录次数，同时确认 Redis 可用。',
  'redis.look': '服务器查询 Redis。',
  'redis.store': '会话加密后存入，密钥由 token 和服务自己的密钥派生；写入是原子操作。',
  'redis.read': '读取这个 token 的记录。只有 token 能解密。',
  'redis.absent': '没有这个 token 的有效记录。',
  'redis.ended': '这个 token 的记录已经删除，只保留会话结束的原因。',
  'redis.end': '删除会话，这是原子操作。',
  'redis.gone': 'Redis 没有响应。服务器用新连接重试一次，然后停止。',
  'redis.trips': '{n} 次往返', 'redis.trip': '1 次往返', 'redis.tries': '{n} 次尝试',
  'bytes.body': '正文 {n} B', 'bytes.bodies': '正文 {out} B 和 {back} B', 'bytes.both': '发出 {out} B，收到 {back} B', 'bytes.sent': '发出 {n} B',

  'first.login': '先让手机登录：POST /login → {status}', 'first.logout': '先让手机退出：DELETE /session → {status}',
  'first.plug': '先由沙箱恢复 Redis',
  'aside.one': '沙箱只允许每个用户有一个会话 → {status}',
  'aside.expire': '一周后：沙箱让这条记录过期 → {status}',
  'aside.gone': '沙箱停止 Redis {n} 秒',
  'aside.wait': '手机按 Retry-After 等 {n} 秒',

  lesson: '客户端应如何处理',
  'lesson.login': '保存 token，并放入 Authorization: Bearer 请求头。wxauth.js 已实现。',
  'lesson.whoami': '每个请求都带上 token，并按响应中的 action 处理。只有 action 是 login 时才重新登录。',
  'lesson.logout': '删除 token。服务器已结束会话。',
  'lesson.two': '不需要处理。每部手机有自己的 token 和会话。',
  'lesson.code_used': '同一个 code 不发送两次。调用 wx.login 获取新的 code，重新登录一次。',
  'lesson.token_invalid': '调用 wx.login，重新登录一次，再重发请求。过期和伪造的 token 得到相同的响应。',
  'lesson.session_replaced': '告诉用户原因，只在用户要求时登录：两部手机如果都自动登录，会反复把对方登出。wxauth.js 会调用 onEnded。',
  'lesson.session_revoked': '告诉用户原因，只在用户要求时登录：这个会话是被主动结束的。wxauth.js 会调用 onEnded。',
  'lesson.user_blocked': '提示用户，不再重试：action 是 none。',
  'lesson.wechat_busy': '等待 Retry-After 指定的时间，调用 wx.login 获取新的 code，再重试。',
  'lesson.store_unavailable': '保留 token，等待 Retry-After 指定的时间，再重试。用户不需要重新登录。',
  'lesson.unreachable': '保留 token，提示用户没有网络连接。',
  'lesson.other': '按返回的 action 处理。',

  'told.code_used': '登录失败。', 'told.token_invalid': '会话已经结束。',
  'told.session_replaced': '你已在另一部手机登录。', 'told.session_revoked': '另一部手机已让你退出登录。',
  'told.user_blocked': '微信不让你登录。', 'told.wechat_busy': '微信现在很忙。',
  'told.store_unavailable': '服务繁忙。你仍然是登录状态。', 'told.unreachable': '沙箱没有响应。它还在运行吗？', 'told.other': '操作失败。',

  'open.asked': '请求', 'open.answered': '响应', 'open.said': 'Redis 命令和返回',
  'open.holds': '之后 Redis 中的内容',
  'open.played': '由沙箱模拟。在真实手机上由微信完成，你的服务器看不到。',
  'open.dots': '圆点代替 AppSecret 和 session_key：只有服务器和微信可以知道。沙箱不会把它们发送给这个页面。',
  'open.none': '没有响应。',

  redis: 'Redis 中的内容', 'redis.told': '都是加密的字节，并且有过期时间：没有 token、openid 和 session_key。只有时间、每个地址的登录次数和会话结束的原因不加密。',
  'redis.empty': '空。', 'redis.back': '无法连接 Redis。{n} 秒后恢复，数据不会丢失。', 'redis.plug': '立即恢复',
  'redis.more': '还有 {n} 个', 'redis.left': '还有 {left}',
  'kind.u': '用户', 'kind.b': '封禁', 'kind.l': '计数', 'kind.p': '探测', 'kind.other': '其他',
  's': '{n} 秒', 'field.session': '会话', 'field.k': 'session_key', 'field.p': '上一个 session_key', 'field.r': '会话结束的原因',

  code: '可以复制的代码', 'code.told': '小程序那段填的是你的地址，其余填的是这个沙箱的地址。更多内容见 README 和 deploy/。',
  'code.address': '你的地址', copy: '复制', copied: '已复制',
  'code.mini': '小程序', 'code.mini.told': '需要同目录下的 examples/miniprogram/wxauth.js。微信要求 HTTPS 和合法域名；开发者工具可以关闭这项检查。',
  'code.flask': 'Flask', 'code.flask.told': '你自己的应用，使用与服务相同的环境变量。',
  'code.nginx': 'nginx', 'code.nginx.told': '放在其他任何后端之前。这是简短版；生产环境请使用完整的 deploy/nginx.conf。',
  'code.curl': '手动', 'code.curl.told': '用三条命令代替手机。',
  footer: 'make run 启动的沙箱只监听本机回环地址。数据都在内存中，停止后丢失。',
}

export const TEXT = { en: EN, zh: ZH }

let language = 'en'

/** Return the text `key` with its {placeholders} replaced. A value may itself be a text, as [key, values]. */
export function sentence(key, values = {}) {
  const text = TEXT[language][key] ?? key
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name]
    return Array.isArray(value) ? sentence(...value) : String(value)
  })
}

/** Set the text of `element`. It follows the language of the page. */
export function say(element, key, values = {}) {
  element.dataset.t = key
  element.dataset.values = JSON.stringify(values)
  element.textContent = sentence(key, values)
  return element
}

export function has(key) {
  return key in EN
}

export function speak(chosen) {
  language = chosen
  document.documentElement.lang = chosen === 'zh' ? 'zh-CN' : 'en'
  for (const element of document.querySelectorAll('[data-t]')) {
    element.textContent = sentence(element.dataset.t, JSON.parse(element.dataset.values ?? '{}'))
  }
  for (const element of document.querySelectorAll('[data-t-label]')) {
    element.setAttribute('aria-label', sentence(element.dataset.tLabel))
  }
}

export function spoken() {
  return language
}

/** Return a duration as [key, values]. */
export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0)
  if (whole >= 2 * 86400) return ['days', { n: Math.round(whole / 86400) }]
  if (whole >= 2 * 3600) return ['hours', { n: Math.round(whole / 3600) }]
  if (whole >= 120) return ['minutes', { n: Math.round(whole / 60) }]
  return ['s', { n: whole }]
}
