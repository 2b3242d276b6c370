const { auth } = getApp()

// Your page. Add its domain as a business domain (业务域名) in WeChat's console, and its origin to WXAUTH_CORS_ORIGINS.
const PAGE = 'https://shop.example.com/page'

const WORDS = {
  rate_limited: '操作太频繁，请稍后再试 · Try again later',
  session_replaced: '已退出登录 · Logged out',
  session_revoked: '已退出登录 · Logged out',
  user_banned: '账号已停用 · This account is banned',
  wx_failed: '网络不通 · No connection',
}

Page({
  data: { src: '', error: '' },

  onLoad() {
    return this.show()
  },

  // The ticket is in the fragment: a browser sends the fragment to no server, so no log and no Referer holds it.
  async show() {
    this.setData({ src: '', error: '' })
    try {
      this.setData({ src: `${PAGE}#ticket=${encodeURIComponent(await auth.ticket())}` })
    } catch (error) {
      this.setData({ error: WORDS[error.code] || `${error.code} ${error.message}` })
    }
  },
})
