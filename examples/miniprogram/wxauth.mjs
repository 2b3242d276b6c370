// The mini program's client of wxauth, without dependencies. It stores the token, sends it to the service and to
// `origins` only, and renews it. See wxauth.d.ts. `npm run build` writes the same code as an ES module, wxauth.mjs.

const LOGIN_INTERVAL = 3000 // ms between two calls of wx.login, because WeChat limits them
const MAX_WAIT = 5 // seconds. If Retry-After is longer, return the answer to the caller.
const CODE_SPENT = ['code_invalid', 'code_used', 'wechat_unreachable'] // WeChat may have used up the code in the body
const ENDED = ['token_invalid', 'session_replaced', 'session_revoked', 'user_banned'] // the session does not exist
const ORIGIN = /^[a-z][a-z\d+.-]*:\/\/[^/?#]*/i // mini programs do not have the class URL
const USER_CODE = /^([B-DF-HJ-NP-TV-XZ]{4})-?([B-DF-HJ-NP-TV-XZ]{4})$/i
const originOf = url => (ORIGIN.exec(url) || [''])[0].toLowerCase()
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const createError = (code, message, answer) => Object.assign(new Error(message), { code, answer })
const isObject = value => typeof value === 'object' && value !== null
const textOf = value => (typeof value === 'string' ? value : '')
const ignoreErrors = work => { try { return work() } catch (error) { return undefined } }
// Return the seconds to wait before a retry. WeChat does not show the headers of uploads and downloads.
const retryAfter = ({ header = {} }, { code }) =>
  Number(header[Object.keys(header).find(it => /^retry-after$/i.test(it))]) || (code === 'rate_limited' ? Infinity : 1)

// Replace the caller's Authorization header, in any case: two of them make a request invalid.
function withToken(header, token) {
  const result = token ? { Authorization: `Bearer ${token}` } : {}
  Object.keys(header || {}).forEach(name => { if (!/^authorization$/i.test(name)) result[name] = header[name] })
  return result
}

// Return the user_code in the query of a page that was opened by a scan, or null. WeChat encodes both members once more.
function scanned({ scene, q }) {
  const text = textOf(ignoreErrors(() => decodeURIComponent(scene || q)))
  const [, given] = /[?&]user_code=([^&#]*)/.exec(text) || ['', text]
  const halves = USER_CODE.exec(given)
  return halves && `${halves[1]}-${halves[2]}`.toUpperCase()
}

function create({ baseURL, appid, device, origins = [], onEnded = () => {}, wx: api = wx }) {
  const base = baseURL.replace(/\/+$/, '')
  const trusted = [base, ...origins].map(originOf)
  const key = `wxauth ${base}`
  let state = ignoreErrors(() => api.getStorageSync(key)) || {} // { token } or { code, detail } of an ended session
  let pendingLogin = null
  let loginAllowed = Promise.resolve() // fulfilled when wx.login may be called again
  const currentToken = () => textOf(state.token)
  const endedError = () => createError(state.code || 'logged_out', state.detail || 'The user is logged out')
  const requireToken = () => { if (!currentToken()) throw endedError(); return currentToken() }
  const callService = (method, path, token, data) => callPlatform(
    'request', { url: `${base}${path}`, method, data, header: withToken({}, token), timeout: 20000 })

  function setState(next) {
    state = next // If the storage is full, the state lasts until the mini program is restarted.
    ignoreErrors(() => (next.token || next.code ? api.setStorageSync(key, next) : api.removeStorageSync(key)))
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

  function parseBody({ data, tempFilePath, filePath }) { // downloadFile writes the body to a file
    let body = data === undefined ? api.getFileSystemManager().readFileSync(tempFilePath || filePath, 'utf8') : data
    if (body.byteLength) body = String.fromCharCode.apply(null, new Uint8Array(body))
    return typeof body === 'string' ? JSON.parse(body) : body
  }

  // Return the problem in an answer, or {}. `assumed` says that the body names no action.
  function problemOf(answer, plain401 = { action: 'login', assumed: true }) {
    const body = answer.statusCode >= 400 ? ignoreErrors(() => parseBody(answer)) : null
    const problem = [body, body && body.detail].find(it => isObject(it) && textOf(it.action)) // FastAPI nests it
    if (problem) return Object.assign({}, problem, { code: textOf(problem.code), detail: textOf(problem.detail) })
    if (answer.statusCode === 401) return plain401
    // A gateway sends HTML or text. JSON is the backend's own answer.
    return /^50[234]$/.test(answer.statusCode) && !isObject(body) ? { action: 'retry', assumed: true } : {}
  }

  // Do what the problem in an answer asks for, if `prepare` returns true: at most one login and two retries.
  async function fetchWithRetry(send, prepare) {
    for (const left = { ask: Infinity, login: 1, retry: 2 }; ;) {
      const answer = await send()
      const problem = problemOf(answer)
      const wait = problem.action === 'retry' ? retryAfter(answer, problem) : 0
      const isAllowed = left[problem.action]-- > 0 && wait <= MAX_WAIT
      if (!isAllowed || !(await prepare(problem))) return answer
      if (wait) await sleep(wait * 1000 * (1 + Math.random() / 4)) // random, or all phones retry at the same moment
    }
  }

  function valueOf(answer, status = 200) {
    if (answer.statusCode === status && (status === 204 || isObject(answer.data))) return answer.data
    const { code, detail } = problemOf(answer)
    throw createError(code || 'not_understood', detail || `The service answered ${answer.statusCode}`, answer)
  }

  async function logIn() {
    async function send() {
      await loginAllowed
      loginAllowed = sleep(LOGIN_INTERVAL)
      const { code } = await callPlatform('login', { timeout: 10000 }) // WeChat accepts a code only once
      return callService('POST', '/login', currentToken(), { code, appid, device })
    }
    try {
      const answer = await fetchWithRetry(send, ({ action }) => action !== 'ask')
      const { token } = valueOf(answer)
      if (!textOf(token)) throw createError('not_understood', 'No token came', answer)
      setState({ token })
    } finally { pendingLogin = null }
  }

  async function login({ force = false } = {}) {
    if (pendingLogin || force || !currentToken()) await (pendingLogin = pendingLogin || logIn())
  }

  // Return the token, after a login if needed. `previous` is the token of a request that is sent again.
  async function tokenToSend(previous) {
    const isLoggedOut = previous && !currentToken()
    if ((state.code || isLoggedOut) && !pendingLogin) throw endedError() // until a login() succeeds
    await login().catch(error => { if (!currentToken()) throw error }) // if a forced login fails, keep the token
    return requireToken()
  }

  // Replace the token `sent`. Return false if no login is due. Reject if the service asks not to log in silently.
  async function renewToken(sent, problem) {
    // Another backend may not know why the session ended: ask the service. If the session is alive, log in.
    const answer = problem.assumed ? await callService('GET', '/session', sent).catch(() => ({})) : null
    const reason = !answer || answer.statusCode === 200 ? problem : problemOf(answer, { action: 'none', assumed: true })
    if (currentToken() !== sent) return true
    if (reason.action === 'ask' && !pendingLogin) {
      setState({ code: reason.code || 'session_revoked', detail: reason.detail })
      Promise.resolve(Object.assign({}, reason, state)).then(onEnded) // its error must not replace the request's error
      throw endedError()
    }
    if (reason.action !== 'login' && !pendingLogin) return false
    if (reason.code === 'token_invalid') setState({})
    await login({ force: true })
    return true
  }

  async function call(name, options) {
    const url = ORIGIN.test(options.url) ? options.url : `${base}/${options.url.replace(/^\/+/, '')}`
    const isTrusted = trusted.includes(originOf(url))
    const isIdempotent = name !== 'uploadFile' && !/^(post|patch|connect)$/i.test(options.method) // RFC 9110, 9.2.2
    let sent
    async function send() {
      if (isTrusted) sent = await tokenToSend(sent)
      const header = isTrusted ? { header: withToken(options.header, sent) } : {}
      const data = typeof options.data === 'function' ? { data: await options.data() } : {}
      return callPlatform(name, Object.assign({}, options, { url }, header, data))
    }
    async function prepare(problem) {
      if (CODE_SPENT.includes(problem.code)) return false
      if (problem.action === 'retry') return isIdempotent || !problem.assumed // the backend may have handled a POST
      return renewToken(sent, problem)
    }
    return isTrusted ? fetchWithRetry(send, prepare) : send()
  }

  async function logout() {
    if (pendingLogin) await pendingLogin.catch(() => {}) // or its token would be stored after the logout
    const ending = currentToken()
    if (!ending) return true
    setState({})
    const send = () => callService('DELETE', '/session', ending)
    const answer = await fetchWithRetry(send, ({ action }) => action === 'retry').catch(() => ({}))
    return answer.statusCode === 204 || ENDED.includes(problemOf(answer).code)
  }

  async function ask(method, url, data, status) {
    return valueOf(await call('request', { url, method, data }), status)
  }

  async function phone(code) {
    if (!code) throw createError('no_phone_code', 'The user gave no phone number')
    return ask('POST', '/phone', { code })
  }

  // Call `get` after a login, and again after a renewal: a login may replace the key of older data.
  async function userData(get) {
    const data = async () => { const { encryptedData, iv } = await get(); return { encryptedData, iv } }
    return ask('POST', '/userdata/decrypt', data)
  }
  const [request, uploadFile, downloadFile] = ['request', 'uploadFile', 'downloadFile'].map(it => call.bind(null, it))
  const token = () => request({ url: '/session' }).then(requireToken) // the request renews a token that has ended
  const ofDevice = (method, code, ...more) => ask(method, `/device/${encodeURIComponent(code)}`, ...more)
  const approve = async code => { await ofDevice('POST', code, { approve: true }, 204) }
  const deny = async code => { await ofDevice('POST', code, { approve: false }, 204) }
  const ticket = async () => (await ask('POST', '/ticket')).ticket
  const scan = { scanned, device: code => ofDevice('GET', code), approve, deny }
  return Object.assign({ request, uploadFile, downloadFile, login, logout, token, phone, userData, ticket }, scan)
}

export { create }
