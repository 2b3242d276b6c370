const { create } = require('./wxauth')

// The sandbox: `make run`. For your own service put its https address here, and your AppID into project.config.json.
const BASE_URL = 'http://127.0.0.1:8000'

const REASONS = {
  session_replaced: '账号已在其他设备登录 · Logged in on another device',
  session_revoked: '登录已被结束 · This login was ended',
}

// Log in again only if the user wants it: a silent login would end the other device's session.
function askToLogIn({ code }) {
  wx.showModal({
    title: '已退出登录 · Logged out',
    content: REASONS[code] || code,
    confirmText: '重新登录',
    success: ({ confirm }) => confirm && auth.login().then(showIndex, error => console.warn(error.code, error.message)),
  })
}

const showIndex = () => wx.reLaunch({ url: '/pages/index/index' })

const auth = create({ baseURL: BASE_URL, onEnded: askToLogIn })

// The first request of a page logs in.
App({ auth })
