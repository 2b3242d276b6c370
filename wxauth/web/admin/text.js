// All texts of the page in two languages. Terms of HTTP, Redis and WeChat are not translated.

const EN = {
  title: 'wxauth operator', operator: 'operator', 'theme.dark': 'Dark', 'theme.light': 'Light',
  user: 'A user', appid: 'Mini program (AppID)', openid: 'openid', lookup: 'Look up',
  'end.one': 'End', 'end.all': 'End all sessions', ban: 'Ban', unban: 'Allow again',
  'state.banned': 'banned', 'state.allowed': 'not banned',
  'sessions.none': 'No live session. A user who has never logged in looks the same.',
  'session.device': 'Label', 'session.kind': 'Kind', 'session.created_at': 'Login time', 'session.action': 'Action',
  'session.unlabelled': 'no label', 'kind.login': 'wx.login', 'kind.scan': 'scan', 'kind.ticket': 'web-view',
  'ask.end.all': 'End all sessions of this user? The user has to log in again on every device.',
  'ask.ban': 'Ban this user? All sessions end, and every new login is refused.',
  'done.end.one': 'The session has ended.', 'done.end.all': 'All sessions have ended.',
  'done.ban': 'The user is banned.', 'done.unban': 'The user may log in again.',
  'wrong.not_found': 'Not found: check the openid. The session may have ended already.',
  'wrong.store_unavailable': 'Redis can’t be reached. Nothing is known about this user now. See Health below.',
  'wrong.rate_limited': 'Too many requests. Wait, and try again.',
  'wrong.client_unauthorized': 'The credential is not accepted any more. Load the page again.',
  'wrong.insufficient_scope': 'This client may not use the operator’s page.',
  'wrong.offline': 'The service does not answer.', 'wrong.other': 'The request failed: {code}.',
  health: 'Health', check: 'Check again', checking: 'Checking Redis and WeChat…', 'checked.at': 'Checked at {time}.',
  ok: 'ok', skipped: 'skipped', warning: 'warning', failure: 'failure',
  'check.redis': 'Redis', 'check.redis.tls': 'Redis: encryption', 'check.redis.version': 'Redis: version',
  'check.redis.policy': 'Redis: eviction policy', 'check.redis.persistence': 'Redis: persistence',
  'check.redis.latency': 'Redis: latency', 'check.clock': 'Clock', 'check.wechat': 'WeChat', 'check.wechat.proxy': 'WeChat: proxy', 'check.proxies': 'Trusted proxies', 'check.sandbox': 'Sandbox',
  'value.redis': 'can store sessions', 'value.redis.latency': '{value} ms', 'value.clock': '{value} s difference to Redis',
  counters: 'Counters', refresh: 'Refresh', 'counted.at': 'All workers of this server since its start. Read at {time}.',
  'counter.logins': 'Logins', 'counter.checks': 'Token checks', 'counter.sessions_ended': 'Ended sessions',
  'counter.userdata': 'Opened user data', 'counter.client_failures': 'Failed logins of clients',
  'counter.pushes': 'Push messages of WeChat', 'counter.none': 'none yet',
  footer: 'The browser keeps the credential until it is closed. This page shows no token and no session_key.',
}

const ZH = {
  title: 'wxauth 管理页面', operator: '管理页面', 'theme.dark': '深色', 'theme.light': '浅色',
  user: '用户', appid: '小程序（AppID）', openid: 'openid', lookup: '查询',
  'end.one': '结束', 'end.all': '结束所有会话', ban: '封禁', unban: '解除封禁',
  'state.banned': '已封禁', 'state.allowed': '未封禁',
  'sessions.none': '没有有效的会话。从未登录过的用户也显示为这样。',
  'session.device': '设备名', 'session.kind': '类型', 'session.created_at': '登录时间', 'session.action': '操作',
  'session.unlabelled': '没有设备名', 'kind.login': 'wx.login', 'kind.scan': '扫码', 'kind.ticket': 'web-view',
  'ask.end.all': '结束该用户的所有会话？该用户需要在每台设备上重新登录。',
  'ask.ban': '封禁该用户？所有会话会结束，新的登录会被拒绝。',
  'done.end.one': '会话已结束。', 'done.end.all': '所有会话已结束。',
  'done.ban': '该用户已被封禁。', 'done.unban': '该用户可以重新登录。',
  'wrong.not_found': '未找到：请检查 openid。该会话也可能已经结束。',
  'wrong.store_unavailable': '无法连接 Redis，暂时查不到该用户的状态。请看下面的健康检查。',
  'wrong.rate_limited': '请求过多，请稍后重试。',
  'wrong.client_unauthorized': '凭据已失效，请重新加载页面。',
  'wrong.insufficient_scope': '该 client 无权使用管理页面。',
  'wrong.offline': '服务没有响应。', 'wrong.other': '请求失败：{code}。',
  health: '健康检查', check: '重新检查', checking: '正在检查 Redis 和微信……', 'checked.at': '检查时间：{time}。',
  ok: '正常', skipped: '跳过', warning: '警告', failure: '故障',
  'check.redis': 'Redis', 'check.redis.tls': 'Redis：加密', 'check.redis.version': 'Redis：版本',
  'check.redis.policy': 'Redis：淘汰策略', 'check.redis.persistence': 'Redis：持久化',
  'check.redis.latency': 'Redis：延迟', 'check.clock': '时钟', 'check.wechat': '微信', 'check.wechat.proxy': '微信：代理', 'check.proxies': '可信代理', 'check.sandbox': '沙箱',
  'value.redis': '可以保存会话', 'value.redis.latency': '{value} 毫秒', 'value.clock': '与 Redis 相差 {value} 秒',
  counters: '计数', refresh: '刷新', 'counted.at': '本服务器所有工作进程自启动以来的合计。读取时间：{time}。',
  'counter.logins': '登录', 'counter.checks': 'token 校验', 'counter.sessions_ended': '结束的会话',
  'counter.userdata': '解密和校验的用户数据', 'counter.client_failures': 'client 认证失败',
  'counter.pushes': '微信推送的消息', 'counter.none': '暂无',
  footer: '浏览器在关闭之前会保留凭据。本页面不显示 token 和 session_key。',
}

export const TEXT = { en: EN, zh: ZH }

let language = 'en'

export const spoken = () => language

/** Return a text, with its `{names}` replaced. A key without a text is its own text. */
export function text(key, values = {}) {
  return (TEXT[language][key] ?? key).replace(/{(\w+)}/g, (_, name) => values[name])
}

/** Write all texts of the page in this language. */
export function speak(chosen) {
  language = chosen
  document.documentElement.lang = chosen === 'zh' ? 'zh-CN' : 'en'
  document.title = text('title')
  for (const element of document.querySelectorAll('[data-t]')) element.textContent = text(element.dataset.t)
}

/** Write a text into an element, and again when the language changes. */
export function say(element, key) {
  element.dataset.t = key
  element.textContent = text(key)
}
