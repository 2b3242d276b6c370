// The mini program's client of wxauth, without dependencies. It stores the token, sends it to the service and to
// `origins` only, and renews it. See wxauth.d.ts. `npm run build` writes the same code as an ES module, wxauth.mjs.

const LOGIN_INTERVAL = 3000 // ms between two calls of wx.login, because WeChat limits them
const MAX_WAIT = 5 // seconds. If Retry-After is longer, return the answer to the caller.
const CODE_SPENT = ['code_invalid', 'code_used', 'wechat_unreachable'] // WeChat may have used up the code in the body
const ORIGIN = /^[a-z][a-z\d+.-]*:\/\/[^/?#]*/i // mini programs do not have the class URL
const originOf = url => (ORIGIN.exec(url) || [''])[0].toLowerCase()
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const createError = (code, message, answer) => Object.assign(new Error(message), { code, answer })
const isObject = value => typeof value === 'object' && value !== null
const ignoreErrors = work => { try { return work() } catch (error) { return undefined } }
const isState = ({ token, endsAt, code }) => typeof code === 'string' || (typeof token === 'string' && endsAt > 0)

// Replace the caller's Authorization header, in any case: two of them make a request invalid.
function withToken(header, token) {
  const result = token ? { Authorization: `Bearer ${token}` } : {}
  Object.keys(header || {}).forEach(name => { if (!/^authorization$/i.test(name)) result[name] = header[name] })
  return result
}

// Return the seconds to wait before a retry. WeChat does not show the headers of uploads and downloads.
const retryAfter = ({ header = {} }, { code }) =>
  Number(header[Object.keys(header).find(it => /^retry-after$/i.test(it))]) || (code === 'rate_limited' ? Infinity : 1)

function create({ baseURL, appid, device, origins = [], onEnded = () => {}, wx: api = wx }) {
  const base = baseURL.replace(/\/+$/, '')
  const trusted = [base, ...origins].map(originOf)
  const key = `wxauth ${base}`
  const stored = ignoreErrors(() => api.getStorageSync(key)) || {}
  let state = isState(stored) ? stored : null // { token, endsAt }, or the problem that ended the session, or null
  let pendingLogin = null
  let loginAllowed = Promise.resolve() // fulfilled when wx.login may be called again
  const currentToken = () => (state && state.token) || ''
  const isValid = () => currentToken() !== '' && Date.now() < state.endsAt
  const endedError = () => createError(state.code, state.detail)

  function setState(next) {
    state = next // If the storage is full, the state lasts until the mini program is restarted.
    ignoreErrors(() => (next ? api.setStorageSync(key, next) : api.removeStorageSync(key)))
  }

  // Call a function of the platform. The promise is settled even if the platform never answers.
  async function callPlatform(name, options) {
    let timer
    try {
      return await new Promise((resolve, reject) => {
        timer = setTimeout(reject, (options.timeout || 60000) + 5000) // WeChat's own timeout is 60 s
        const task = api[name](Object.assign({}, options, { success: resolve, fail: reject }))
        if (task && task.catch) task.catch(reject) // Taro's functions also return a promise
      })
    } catch (error) {
      throw createError('wx_failed', (error && (error.errMsg || error.message)) || `${name}:fail no answer`)
    } finally { clearTimeout(timer) }
  }

  const callService = (method, path, token, data) => callPlatform(
    'request', { url: `${base}${path}`, method, data, header: withToken({}, token), timeout: 20000 })

  function parseBody({ data, tempFilePath, filePath }) {
    const readFile = () => api.getFileSystemManager().readFileSync(tempFilePath || filePath, 'utf8')
    let body = data === undefined ? readFile() : data // downloadFile writes the body to a file
    if (body.byteLength) body = String.fromCharCode.apply(null, new Uint8Array(body))
    return typeof body === 'string' ? JSON.parse(body) : body
  }

  // Return the problem in an answer, or {}. `assumed` says that the body names no action.
  function problemOf(answer) {
    const body = answer.statusCode >= 400 ? ignoreErrors(() => parseBody(answer)) : null
    const problem = isObject(body) && isObject(body.detail) ? body.detail : body // FastAPI nests it in `detail`
    if (isObject(problem) && typeof problem.action === 'string') return problem
    if (answer.statusCode === 401) return { action: 'login', assumed: true }
    // A gateway sends HTML or text. JSON is the backend's own answer.
    return /^50[234]$/.test(answer.statusCode) && !isObject(body) ? { action: 'retry', assumed: true } : {}
  }

  // Do what the problem in an answer asks for, if `prepare` returns true: at most one login and two retries.
  async function fetchWithRetry(send, prepare, isWanted = () => true) {
    for (let retries = 2, logins = 1; ;) {
      const answer = await send()
      const problem = problemOf(answer)
      const { action } = problem
      const wait = action === 'retry' ? retryAfter(answer, problem) : 0
      const again = action === 'ask' || (action === 'login' && logins-- > 0) || (action === 'retry' && retries-- > 0)
      if (!again || wait > MAX_WAIT || !(await prepare(problem))) return answer
      if (wait) await sleep(wait * 1000 * (1 + Math.random() / 4)) // random, or all phones retry at the same moment
      if (!isWanted()) return answer
    }
  }

  function valueOf(answer) {
    if (answer.statusCode === 200 && isObject(answer.data)) return answer.data
    const { code, detail } = problemOf(answer)
    throw createError(code || 'not_understood', detail || `The service answered ${answer.statusCode}`, answer)
  }

  async function logIn() {
    async function send() {
      await loginAllowed
      loginAllowed = sleep(LOGIN_INTERVAL)
      const { code } = await callPlatform('login', { timeout: 10000 }) // WeChat accepts a code only once
      const data = Object.assign({ code }, appid ? { appid } : {}, device ? { device } : {})
      return callService('POST', '/login', currentToken(), data)
    }
    try {
      const answer = await fetchWithRetry(send, ({ action }) => action !== 'ask')
      const { token, expires_in: seconds } = valueOf(answer)
      if (typeof token !== 'string' || !(seconds > 0)) throw createError('not_understood', 'No token came', answer)
      setState({ token, endsAt: Date.now() + seconds * 900 }) // renew after 90 % of its life
    } finally { pendingLogin = null }
  }

  async function login({ force = false } = {}) {
    if (pendingLogin || force || !isValid()) await (pendingLogin = pendingLogin || logIn())
  }

  async function token() {
    if (state && state.code && !pendingLogin) throw endedError() // until a login() succeeds
    await login().catch(error => { if (!isValid()) throw error }) // a forced login may fail while the token is valid
    return currentToken()
  }

  // Replace the token `sent`, unless that has happened. Reject if the service asks not to log in silently.
  async function renewToken(sent, problem) {
    // Another backend may not know why the session ended. Ask the service.
    const reason = problem.assumed ? problemOf(await callService('GET', '/session', sent)) : problem
    if (currentToken() !== sent) return
    if (reason.action === 'ask' && !pendingLogin) {
      setState(Object.assign({ code: 'session_revoked' }, reason))
      Promise.resolve(state).then(onEnded) // an error in onEnded must not replace the error of the request
      throw endedError()
    }
    if (reason.code === 'token_invalid') setState(null)
    await login({ force: true })
  }

  async function call(name, options) {
    const url = ORIGIN.test(options.url) ? options.url : `${base}/${options.url.replace(/^\/+/, '')}`
    if (!trusted.includes(originOf(url))) return callPlatform(name, options)
    const isPost = name === 'uploadFile' || /^post$/i.test(options.method)
    let sent
    async function send() {
      sent = await token()
      const data = typeof options.data === 'function' ? { data: await options.data() } : {}
      return callPlatform(name, Object.assign({}, options, data, { url, header: withToken(options.header, sent) }))
    }
    async function prepare(problem) {
      // The backend may have handled a POST before the gateway failed (RFC 9110, 9.2.2).
      if (CODE_SPENT.includes(problem.code) || (problem.action === 'retry' && problem.assumed && isPost)) return false
      if (problem.action !== 'retry') await renewToken(sent, problem)
      return true
    }
    return fetchWithRetry(send, prepare, () => state !== null || pendingLogin !== null) // not after a logout
  }

  async function logout() {
    if (pendingLogin) await pendingLogin.catch(() => {}) // or its token would be stored after the logout
    const ending = currentToken()
    if (!ending) return true
    setState(null)
    const send = () => callService('DELETE', '/session', ending)
    const { statusCode } = await fetchWithRetry(send, ({ action }) => action === 'retry').catch(() => ({}))
    return [204, 401, 403].includes(statusCode) // 403: a ban has ended it
  }

  async function phone(code) {
    if (!code) throw createError('no_phone_code', 'The user gave no phone number')
    return valueOf(await call('request', { url: '/phone', method: 'POST', data: { code } }))
  }

  // Call `get` after a login, and again after a renewal: a login may replace the key of older data.
  async function userData(get) {
    const data = async () => { const { encryptedData, iv } = await get(); return { encryptedData, iv } }
    return valueOf(await call('request', { url: '/userdata/decrypt', method: 'POST', data }))
  }
  const [request, uploadFile, downloadFile] = ['request', 'uploadFile', 'downloadFile'].map(it => call.bind(null, it))
  return { request, uploadFile, downloadFile, login, logout, token, phone, userData }
}

module.exports = { create }
