const { auth } = getApp()

// The messages for the user. All other codes are for the developer of the mini program.
const WORDS = {
  not_found: '登录码已失效，请刷新网页后重新扫码 · This code is no longer valid. Reload the website and scan again',
  rate_limited: '操作太频繁，请稍后再试 · Try again later',
  session_replaced: '已退出登录 · Logged out',
  session_revoked: '已退出登录 · Logged out',
  user_banned: '账号已停用 · This account is banned',
  wx_failed: '网络不通 · No connection',
}
const NO_CODE = '没有识别到登录码，请重新扫码 · There is no login code here'
const NOT_SCANNED = '请用“扫一扫”直接扫屏幕上的码，不支持图片和链接 · Scan the code on the screen; pictures and links are not accepted'

// WeChat's numbers for a QR code and a mini-program code that the camera has read. An attacker sends the code of the
// attacker's own screen as a picture, or opens this page with it from a card, a link or another mini program.
const BY_CAMERA = [1011, 1047]

function ago(seconds) {
  const minutes = Math.floor(Math.max(0, seconds) / 60)
  return minutes ? `${minutes} 分钟前 · ${minutes} min ago` : '刚刚 · just now'
}

Page({
  data: { busy: true, code: '', asking: null, result: '', error: '' },

  onLoad(query) {
    const code = auth.scanned(query)
    if (!BY_CAMERA.includes(wx.getEnterOptionsSync().scene)) return this.setData({ busy: false, error: NOT_SCANNED })
    if (!code) return this.setData({ busy: false, error: NO_CODE })
    this.setData({ code })
    return this.show()
  },

  // Run one action at a time. Show its error on the page.
  async during(work) {
    this.setData({ busy: true, error: '' })
    try {
      this.setData(await work())
    } catch (error) {
      this.setData({ error: WORDS[error.code] || `${error.code} ${error.message}` })
      if (error.code === 'not_found') this.setData({ asking: null })
    }
    this.setData({ busy: false })
  },

  show() {
    return this.during(async () => {
      const { client_name: name, created_at: since, network } = await auth.device(this.data.code)
      const where = network === 'unknown' ? '未知 · unknown' : network
      return { asking: { name, network: where, ago: ago(Date.now() / 1000 - since) } }
    })
  },

  approve() {
    return this.during(async () => {
      await auth.approve(this.data.code)
      return { asking: null, result: '登录成功，请回到网页 · Logged in. Go back to the website' }
    })
  },

  deny() {
    return this.during(async () => {
      await auth.deny(this.data.code)
      return { asking: null, result: '已拒绝这次登录 · The login was refused' }
    })
  },
})
