// Every sentence of the page in two languages, and how they get onto it. Names of HTTP, Redis and WeChat are not translated.

const EN = {
  playground: 'playground',
  tagline: 'A WeChat login, from wx.login to the token, as it really happens. No AppID, no server, no network.',
  'theme.dark': 'Dark', 'theme.light': 'Light', language: '中文',
  tabs: 'What the right side shows', 'tab.flow': 'What happens', 'tab.code': 'The code',
  phone: 'A phone', 'phone.app': 'My mini program',
  'phone.login': 'Log in with WeChat', 'phone.whoami': 'Who am I?', 'phone.logout': 'Log out',
  'phone.nobody': 'Not logged in', 'phone.nobody.told': 'Press the button and watch the messages.',
  'phone.asking': 'One moment…', 'phone.asking.told': 'The messages come on in the order in which they happened.',
  'phone.known': 'Logged in', 'phone.known.told': 'openid {openid} · {left} left', 'phone.known.bare': 'A token, good for {left}.',
  days: '{n} days', hours: '{n} hours', minutes: '{n} minutes',
  'pocket.token': 'token', 'pocket.none': 'none', 'pocket.session_key': 'never comes here',
  'cure.login': 'Log in again', 'cure.retry': 'Wait {n} s, try again', 'cure.none': 'Close',
  breakage: 'What if …', 'breakage.hint': 'Break something, and see what a good client does.',
  'scene.login': 'Log in', 'scene.login.told': 'The code goes in, a token comes out. Open a message to see its HTTP.',
  'scene.whoami': 'Who am I?', 'scene.whoami.told': 'A request with the token. This is how every request of yours will look.',
  'scene.logout': 'Log out', 'scene.logout.told': 'This phone’s session ends at once, on every server.',
  'scene.used': 'a code is used twice', 'scene.used.told': 'The first answer gets lost (this page drops it), so a careless phone sends the same code again.',
  'scene.expired': 'the token has expired', 'scene.expired.told': 'Nobody used this session for a week: its record in Redis is gone.',
  'scene.busy': 'WeChat is busy', 'scene.busy.told': 'WeChat answers errcode -1. The server asks three times before it gives up.',
  'scene.blocked': 'WeChat blocks the user', 'scene.blocked.told': 'WeChat considers this account high-risk: errcode 40226.',
  'scene.gone': 'Redis is gone', 'scene.gone.told': 'Redis can’t be reached. Nobody is logged out by that.',
  'scene.elsewhere': 'another phone logs me out', 'scene.elsewhere.told': 'A second phone of the same user ends all sessions but its own.',
  'scene.two': 'two phones log in at once', 'scene.two.told': 'The same user, two phones, the same moment.',
  'scene.forged': 'a token is forged', 'scene.forged.told': 'One letter of the token is changed.',
  'scene.idle': 'The login, live', 'scene.idle.told': 'The diagram of WeChat’s own documentation, drawn by real requests.',
  empty: 'Press “Log in with WeChat” on the phone.',
  messages: 'Messages, in order',
  'actor.phone': 'Mini program', 'actor.server': 'Your server', 'actor.wechat': 'WeChat', 'actor.redis': 'Redis',
  'second': 'second phone',
  true: 'Nothing here is made up: the browser’s requests and the server’s own messages to WeChat and Redis, slowed down for the eye. Times and bytes are the real ones. Only WeChat and Redis are played by the sandbox, inside this process.',

  'ask.wx.login': 'The phone asks WeChat for a code. It works once, for five minutes.',
  'ask.POST /login': 'The phone hands the code to your server. It knows nothing else.',
  'ask.GET /session': 'The phone sends its token along, and nothing else.',
  'ask.GET /sessions': 'The phone asks for the user’s sessions.',
  'ask.DELETE /session': 'The phone ends its session.',
  'ask.DELETE /sessions?keep=current': 'The second phone ends all sessions of this user but its own.',
  'answer.POST /login': 'An opaque token. The session_key stays on the server.',
  'answer.GET /session': 'Whose token it is, and how long it is good for.',
  'answer.GET /sessions': 'Each phone has a session of its own: {n} are alive.',
  'answer.DELETE /session': 'Ended. The token is worth nothing from now on.',
  'answer.DELETE /sessions?keep=current': 'Ended, all but the one that asked.',
  'answer.lost': 'The user is logged in, but this answer gets lost on the way: the phone never sees it.',
  'answer.code_used': 'WeChat exchanges a code once. Action: login.',
  'answer.token_invalid': 'No live session has this token. Action: login.',
  'answer.token_invalid.unasked': 'The signature does not fit, so nobody had to be asked. Action: login.',
  'answer.user_blocked': 'WeChat does not let this user in. Action: none.',
  'answer.wechat_busy': 'Three tries, then a clear answer. Action: retry.',
  'answer.store_unavailable': 'Not a 401: the session may well be alive. Action: retry.',
  'answer.store_unavailable.unasked': 'The breaker is open: refused at once, without asking Redis. Action: retry.',
  'answer.other': 'Action: {action}.',
  'wechat.ok': 'Your server shows WeChat the code and the AppSecret, and learns who it is.',
  'wechat.-1': 'WeChat is too busy to answer. The code is not used up by this.',
  'wechat.40163': 'WeChat has exchanged this code before.',
  'wechat.40226': 'WeChat considers this user high-risk.',
  'wechat.other': 'WeChat refuses.', 'wechat.silent': 'WeChat gives no answer in time.',
  'redis.check': 'Before the code is spent: how many logins came from this address, and does Redis answer?',
  'redis.look': 'Your server looks something up.',
  'redis.store': 'The session is sealed under a key that takes the token and our own key to derive, and stored: all of it or nothing.',
  'redis.read': 'The record of this token is read. Only the token opens it.',
  'redis.absent': 'There is no record of this token.',
  'redis.end': 'The record and its entry in the user’s list are deleted, all or nothing.',
  'redis.gone': 'Nobody answers. The server tries a new connection, then stops.',
  'redis.trips': '{n} round trips', 'redis.trip': '1 round trip', 'redis.tries': '{n} tries',
  'bytes.body': '{n} B of body', 'bytes.bodies': 'bodies of {out} B and {back} B', 'bytes.both': '{out} B out, {back} B back', 'bytes.sent': '{n} B sent',

  'first.login': 'First, the phone logs in: POST /login → {status}', 'first.logout': 'First, the phone logs out: DELETE /session → {status}',
  'first.plug': 'First, the sandbox plugs Redis in again',
  'aside.expire': 'A week passes: the sandbox lets the record’s time run out → {status}',
  'aside.gone': 'The sandbox cuts Redis off, for {n} seconds',
  'aside.wait': 'The phone waits {n} s, as Retry-After says',

  lesson: 'What a good client does',
  'lesson.login': 'Keeps the token, sends it as Authorization: Bearer, and keeps nothing else. wxauth.js does it for you.',
  'lesson.whoami': 'Sends the token with every request and looks at the answer’s action. It logs in again only when told to.',
  'lesson.logout': 'Throws its token away too. The server has forgotten it already.',
  'lesson.two': 'Nothing. Each phone has a token of its own; both entries lie in one list, and none overwrote the other.',
  'lesson.code_used': 'Never sends a code twice. It calls wx.login for a new one and logs in again, once.',
  'lesson.token_invalid': 'Calls wx.login, logs in again, once, and repeats the request. Expired, revoked or forged: one answer, so nobody can probe.',
  'lesson.user_blocked': 'Tells the user, and does not try again: action is none.',
  'lesson.wechat_busy': 'Waits as long as Retry-After says, then calls wx.login for a new code and tries again.',
  'lesson.store_unavailable': 'Keeps its token, waits as long as Retry-After says, and tries again. Nobody has to log in anew.',
  'lesson.unreachable': 'Keeps its token, and tells the user that there is no connection.',
  'lesson.other': 'Follows the action of the problem.',

  'told.code_used': 'The login did not work.', 'told.token_invalid': 'The session is over.',
  'told.user_blocked': 'WeChat does not let you in.', 'told.wechat_busy': 'WeChat is busy just now.',
  'told.store_unavailable': 'The service is busy. You are still logged in.', 'told.unreachable': 'The sandbox does not answer. Is it still running?', 'told.other': 'This did not work.',

  'open.asked': 'Request', 'open.answered': 'Answer', 'open.said': 'Said to Redis, and what Redis said',
  'open.holds': 'What Redis holds after it',
  'open.played': 'Played by the sandbox. On a real phone WeChat itself does this, and no server of yours sees it.',
  'open.dots': 'Dots stand for the AppSecret and the session_key, which only the server and WeChat may know. The sandbox does not hand them to this page either.',
  'open.none': 'No answer.',

  redis: 'What Redis holds now', 'redis.told': 'Sealed bytes, all with a time limit: no token, no openid, no session_key. In the clear is only how many logins came from an address.',
  'redis.empty': 'Nothing yet.', 'redis.back': 'Redis can’t be reached. It is back in {n} s; what it holds is kept.', 'redis.plug': 'Plug it in again',
  'redis.more': 'and {n} more', 'redis.left': '{left} left',
  'kind.s': 'session', 'kind.u': 'user', 'kind.b': 'ban', 'kind.l': 'counter', 'kind.p': 'probe', 'kind.other': 'other',
  's': '{n} s', 'field.k': 'session_key', 'field.p': 'session_key before',

  code: 'The code to copy', 'code.told': 'The mini program’s has your address filled in, the rest that of this sandbox. More is in the README and in deploy/.',
  'code.address': 'Your address', copy: 'Copy', copied: 'Copied',
  'code.mini': 'Mini program', 'code.mini.told': 'With examples/miniprogram/wxauth.js beside it. WeChat wants HTTPS and the domain on its list; in DevTools you can switch that check off.',
  'code.flask': 'Flask', 'code.flask.told': 'Your own application, in the same environment as the service.',
  'code.nginx': 'nginx', 'code.nginx.told': 'In front of anything else. The short form; deploy/nginx.conf is complete, and is the one to run.',
  'code.curl': 'By hand', 'code.curl.told': 'Be the phone yourself: three lines.',
  footer: 'Started by make run, the sandbox listens on loopback only, keeps everything in memory, and forgets it when it ends.',
}

const ZH = {
  playground: '演练场',
  tagline: '微信登录全过程，从 wx.login 到 token，真实发生。不用 AppID，不用服务器，不用联网。',
  'theme.dark': '深色', 'theme.light': '浅色', language: 'English',
  tabs: '右边显示什么', 'tab.flow': '发生了什么', 'tab.code': '代码',
  phone: '一部手机', 'phone.app': '我的小程序',
  'phone.login': '微信登录', 'phone.whoami': '我是谁？', 'phone.logout': '退出登录',
  'phone.nobody': '未登录', 'phone.nobody.told': '按下按钮，看消息怎么走。',
  'phone.asking': '请稍候……', 'phone.asking.told': '消息会按发生的顺序亮起来。',
  'phone.known': '已登录', 'phone.known.told': 'openid {openid} · 还有 {left}', 'phone.known.bare': '拿到了 token，有效期 {left}。',
  days: '{n} 天', hours: '{n} 小时', minutes: '{n} 分钟',
  'pocket.token': 'token', 'pocket.none': '没有', 'pocket.session_key': '不会到手机上',
  'cure.login': '重新登录', 'cure.retry': '等 {n} 秒再试', 'cure.none': '知道了',
  breakage: '假如……', 'breakage.hint': '弄坏点什么，看好的客户端怎么办。',
  'scene.login': '登录', 'scene.login.told': '交出 code，换回 token。点开一条消息，看它的 HTTP。',
  'scene.whoami': '我是谁？', 'scene.whoami.told': '带着 token 的请求。以后每个请求都是这个样子。',
  'scene.logout': '退出登录', 'scene.logout.told': '这部手机的会话立刻结束，在所有服务器上都生效。',
  'scene.used': '同一个 code 用两次', 'scene.used.told': '第一次的回答丢了（由本页面丢掉），粗心的手机把同一个 code 又发了一遍。',
  'scene.expired': 'token 过期了', 'scene.expired.told': '这个会话一周没人用：它在 Redis 里的记录没有了。',
  'scene.busy': '微信繁忙', 'scene.busy.told': '微信回 errcode -1。服务器问三次才放弃。',
  'scene.blocked': '用户被微信拦截', 'scene.blocked.told': '微信认为这个账号风险高：errcode 40226。',
  'scene.gone': 'Redis 连不上了', 'scene.gone.told': '连不上 Redis。没有人会因此被登出。',
  'scene.elsewhere': '被另一部手机登出', 'scene.elsewhere.told': '同一用户的第二部手机，结束自己以外的所有会话。',
  'scene.two': '两部手机同时登录', 'scene.two.told': '同一个用户，两部手机，同一时刻。',
  'scene.forged': '伪造的 token', 'scene.forged.told': 'token 里改了一个字母。',
  'scene.idle': '登录流程，实况', 'scene.idle.told': '微信官方文档里的那张图，由真实的请求画出来。',
  empty: '按手机上的“微信登录”。',
  messages: '按顺序排列的消息',
  'actor.phone': '小程序', 'actor.server': '开发者服务器', 'actor.wechat': '微信服务器', 'actor.redis': 'Redis',
  'second': '第二部手机',
  true: '这里没有一处是编造的：浏览器的请求、服务器发给微信和 Redis 的消息都是真的，只是放慢了，方便看清。时间和字节数都是实测的。只有微信和 Redis 由沙箱在本进程里扮演。',

  'ask.wx.login': '手机向微信要一个 code：只能用一次，五分钟有效。',
  'ask.POST /login': '手机把 code 交给你的服务器。别的它一概不知。',
  'ask.GET /session': '手机只带上 token，别的都不带。',
  'ask.GET /sessions': '手机查询这个用户的会话。',
  'ask.DELETE /session': '手机结束自己的会话。',
  'ask.DELETE /sessions?keep=current': '第二部手机结束这个用户的所有会话，只留自己的。',
  'answer.POST /login': '一个不透明的 token。session_key 留在服务器上。',
  'answer.GET /session': '这个 token 是谁的，还有多久到期。',
  'answer.GET /sessions': '每部手机各有一个会话：现在有 {n} 个。',
  'answer.DELETE /session': '结束了。这个 token 从此没有用处。',
  'answer.DELETE /sessions?keep=current': '其他会话都结束了，只留下发起请求的这一个。',
  'answer.lost': '用户已经登录，但这个回答在路上丢了：手机没有收到。',
  'answer.code_used': '一个 code 微信只换一次。action：login。',
  'answer.token_invalid': '没有与这个 token 对应的有效会话。action：login。',
  'answer.token_invalid.unasked': '签名对不上，不用问 Redis 就能拒绝。action：login。',
  'answer.user_blocked': '微信不让这个用户登录。action：none。',
  'answer.wechat_busy': '试三次，然后给出明确的回答。action：retry。',
  'answer.store_unavailable': '不是 401：会话很可能还在。action：retry。',
  'answer.store_unavailable.unasked': '熔断器已打开：不问 Redis，立刻拒绝。action：retry。',
  'answer.other': 'action：{action}。',
  'wechat.ok': '服务器把 code 和 AppSecret 交给微信，得知用户是谁。',
  'wechat.-1': '微信系统繁忙，没有处理。code 不会因此用掉。',
  'wechat.40163': '这个 code 微信已经换过了。',
  'wechat.40226': '微信认为这个用户风险高。',
  'wechat.other': '微信拒绝了。', 'wechat.silent': '微信没有及时回答。',
  'redis.check': '用掉 code 之前先看：这个地址登录过几次？Redis 通不通？',
  'redis.look': '服务器查一下。',
  'redis.store': '会话加密后存入，密钥由 token 和我们自己的密钥派生：要么全部写入，要么都不写。',
  'redis.read': '读出这个 token 的记录。只有 token 能打开它。',
  'redis.absent': '没有这个 token 的记录。',
  'redis.end': '删掉记录和用户列表里的那一项，要么全成，要么全不成。',
  'redis.gone': 'Redis 没有响应。服务器换一条新连接再试一次，还不行就停下。',
  'redis.trips': '{n} 次往返', 'redis.trip': '1 次往返', 'redis.tries': '{n} 次尝试',
  'bytes.body': '正文 {n} B', 'bytes.bodies': '正文 {out} B 和 {back} B', 'bytes.both': '发出 {out} B，收到 {back} B', 'bytes.sent': '发出 {n} B',

  'first.login': '先让手机登录：POST /login → {status}', 'first.logout': '先让手机退出：DELETE /session → {status}',
  'first.plug': '先由沙箱把 Redis 接回去',
  'aside.expire': '一周过去了：沙箱让这条记录过期 → {status}',
  'aside.gone': '沙箱把 Redis 断开 {n} 秒',
  'aside.wait': '手机按 Retry-After 等 {n} 秒',

  lesson: '好的客户端怎么做',
  'lesson.login': '保存 token，用 Authorization: Bearer 带上，别的都不存。wxauth.js 替你做好了。',
  'lesson.whoami': '每个请求都带上 token，并看回答里的 action。让它登录时才重新登录。',
  'lesson.logout': '自己也把 token 扔掉。服务器早已忘了它。',
  'lesson.two': '什么都不用做。每部手机有自己的 token；两项都在同一个列表里，谁也没有覆盖谁。',
  'lesson.code_used': '同一个 code 绝不发两次。调用 wx.login 拿新的，重新登录，只试一次。',
  'lesson.token_invalid': '调用 wx.login，重新登录一次，再重发请求。过期、被吊销、伪造，回答都一样，谁也试探不出来。',
  'lesson.user_blocked': '告诉用户，不再重试：action 是 none。',
  'lesson.wechat_busy': '按 Retry-After 等，然后用 wx.login 拿新的 code 再试。',
  'lesson.store_unavailable': '留着 token，按 Retry-After 等，再试。谁都不用重新登录。',
  'lesson.unreachable': '留着 token，告诉用户没有连上网络。',
  'lesson.other': '按返回的 action 处理。',

  'told.code_used': '登录没有成功。', 'told.token_invalid': '会话已经结束。',
  'told.user_blocked': '微信不让你登录。', 'told.wechat_busy': '微信现在很忙。',
  'told.store_unavailable': '服务繁忙。你仍然是登录状态。', 'told.unreachable': '沙箱没有回答。它还在运行吗？', 'told.other': '没有成功。',

  'open.asked': '请求', 'open.answered': '回答', 'open.said': '对 Redis 说的话，和 Redis 的回答',
  'open.holds': '之后 Redis 里有什么',
  'open.played': '由沙箱扮演。在真手机上这是微信自己做的，你的服务器看不到。',
  'open.dots': '圆点代表 AppSecret 和 session_key：只有服务器和微信可以知道。沙箱也不会把它们交给这个页面。',
  'open.none': '没有回答。',

  redis: 'Redis 里现在有什么', 'redis.told': '都是加密后的字节，都有过期时间：看不到 token、openid、session_key。只有每个地址的登录次数是明文。',
  'redis.empty': '还什么都没有。', 'redis.back': '连不上 Redis。{n} 秒后恢复，里面的东西都还在。', 'redis.plug': '现在就接回去',
  'redis.more': '还有 {n} 个', 'redis.left': '还有 {left}',
  'kind.s': '会话', 'kind.u': '用户', 'kind.b': '封禁', 'kind.l': '计数', 'kind.p': '探测', 'kind.other': '其他',
  's': '{n} 秒', 'field.k': 'session_key', 'field.p': '上一个 session_key',

  code: '可以复制的代码', 'code.told': '小程序那段填的是你的地址，其余填的是这个沙箱的地址。更多内容见 README 和 deploy/。',
  'code.address': '你的地址', copy: '复制', copied: '已复制',
  'code.mini': '小程序', 'code.mini.told': '旁边放上 examples/miniprogram/wxauth.js。微信要求 HTTPS 和合法域名；在开发者工具里可以关掉这项检查。',
  'code.flask': 'Flask', 'code.flask.told': '你自己的应用，和服务用同样的环境变量。',
  'code.nginx': 'nginx', 'code.nginx.told': '放在任何别的后端前面。这是简短版；deploy/nginx.conf 是完整的，上线请用那一份。',
  'code.curl': '手动', 'code.curl.told': '自己来当手机：三行。',
  footer: '用 make run 启动的沙箱只在本机回环地址上监听，一切都在内存里，结束就忘掉。',
}

export const TEXT = { en: EN, zh: ZH }

let language = 'en'

/** The sentence `key`, with its {places} filled in; a value that is itself a list [key, values] is a sentence too. */
export function sentence(key, values = {}) {
  const text = TEXT[language][key] ?? key
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name]
    return Array.isArray(value) ? sentence(...value) : String(value)
  })
}

/** Writes a sentence into `element`, where it changes along with the language. */
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

/** How long `seconds` are, as values for a sentence. */
export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0)
  if (whole >= 2 * 86400) return ['days', { n: Math.round(whole / 86400) }]
  if (whole >= 2 * 3600) return ['hours', { n: Math.round(whole / 3600) }]
  if (whole >= 120) return ['minutes', { n: Math.round(whole / 60) }]
  return ['s', { n: whole }]
}
