const { auth } = getApp()

// The messages for the user. All other codes are for the developer of the mini program.
const WORDS = {
  session_replaced: '已退出登录 · Logged out',
  session_revoked: '已退出登录 · Logged out',
  wx_failed: '网络不通 · No connection',
  rate_limited: '请稍后再试 · Try again later',
  user_banned: '账号已停用 · This account is banned',
  user_blocked: '微信拦截了登录 · WeChat has blocked the login',
  no_phone_code: '未授权手机号 · No phone number was given',
}

const ENDED = ['session_replaced', 'session_revoked']

const when = seconds => new Date(seconds * 1000).toLocaleString()

// Return the body of an answer. Throw an error with the code of its problem if the status is not 200.
async function get(url) {
  const { statusCode, data } = await auth.request({ url })
  if (statusCode === 200) return data
  throw Object.assign(new Error(data.detail || `HTTP ${statusCode}`), { code: data.code })
}

Page({
  data: { busy: true, session: null, sessions: [], phone: '', error: '' },

  onLoad() {
    return this.show()
  },

  // Run one action at a time. Show its error on the page.
  async during(work) {
    this.setData({ busy: true, error: '' })
    try {
      this.setData(await work() || {})
    } catch (error) {
      this.setData({ error: WORDS[error.code] || `${error.code || ''} ${error.message || error.errMsg}` })
      if (ENDED.includes(error.code)) this.setData({ session: null, sessions: [], phone: '' })
    }
    this.setData({ busy: false })
  },

  show() {
    return this.during(async () => {
      const [session, { sessions }] = await Promise.all([get('/session'), get('/sessions')])
      const { openid, created_at: since, expires_in: seconds } = session
      return {
        session: { openid, since: when(since), days: Math.ceil(seconds / 86400) },
        sessions: sessions.map(it => Object.assign({}, it, { since: when(it.created_at) })),
      }
    })
  },

  logIn() {
    return this.during(() => auth.login({ force: true })).then(() => this.data.error || this.show())
  },

  logOut() {
    return this.during(async () => {
      const ended = await auth.logout()
      const error = ended ? '' : '本机已退出，服务器未确认 · Logged out here; the service could not be asked'
      return { session: null, sessions: [], phone: '', error }
    })
  },

  openWeb() {
    wx.navigateTo({ url: '/pages/web/index' })
  },

  givePhone({ detail }) {
    return this.during(async () => ({ phone: (await auth.phone(detail.code)).purePhoneNumber }))
  },
})
