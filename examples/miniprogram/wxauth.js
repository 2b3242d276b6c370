// The mini program's side of wxauth: one file, nothing to install. wxauth.d.ts says how it is used.
// It owns the token: gets it, keeps it, sends it to our own origin alone, and replaces it when the service says so.

const GAP = 3000 // ms between two wx.login; WeChat limits them
const RETRIES = 2
const LONGEST_WAIT = 5 // seconds; where Retry-After asks for more, the answer is the caller's
const TIMEOUT = 60000 // ms, WeChat's own
const LIFE = 900 // ms of each second that the login named; use makes a token live longer, but nobody tells us
const SPENT = ['code_invalid', 'code_used', 'wechat_unreachable'] // a code in the body can't be sent again
const ORIGIN = /^[a-z][a-z\d+.-]*:\/\/[^/?#]*/i // mini programs have no URL

const originOf = url => (ORIGIN.exec(url) || [''])[0].toLowerCase()
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const failure = (code, message, answer) => Object.assign(new Error(message), { code, answer })
const bearer = (header, token) => Object.assign({}, header, token ? { Authorization: `Bearer ${token}` } : {})
const tried = (work, otherwise) => { try { return work() } catch (error) { return otherwise } }
const named = (header, name) => header[Object.keys(header).find(it => it.toLowerCase() === name)]
const retryAfter = ({ header = {} }, { code }) => // uploads and downloads show no header
  Number(named(header, 'retry-after')) || (code === 'rate_limited' ? Infinity : 1)

function create({ baseURL, appid, device, wx: api = wx }) {
  const base = baseURL.replace(/\/+$/, '')
  const key = `wxauth ${base}`
  const read = ({ token, endsAt }) => (token && typeof token === 'string' && endsAt > 0 ? { token, endsAt } : null)
  let held = tried(() => read(api.getStorageSync(key)), null)
  let flight = null // the login under way
  let gate = Promise.resolve() // open as soon as wx.login may be called again

  const alive = () => held !== null && Date.now() < held.endsAt
  const current = () => (held ? held.token : '')

  function hold(next) {
    held = next
    // Where the storage is full, what is in memory goes on, and the next start of the app logs in once more.
    tried(() => (next ? api.setStorageSync(key, next) : api.removeStorageSync(key)))
  }

  // WeChat's call as a promise that is settled in any case.
  function ask(name, options) {
    return new Promise((resolve, reject) => {
      const words = error => (error && (error.errMsg || error.message)) || `${name}:fail no answer`
      const fail = error => reject(failure('wx_failed', words(error)))
      const timer = setTimeout(fail, (options.timeout || TIMEOUT) + 5000) // should WeChat never answer
      const ending = settle => result => { clearTimeout(timer); settle(result) }
      try {
        const task = api[name](Object.assign({}, options, { success: ending(resolve), fail: ending(fail) }))
        if (task && task.catch) task.catch(ending(fail)) // Taro's calls are promises too
      } catch (error) { ending(fail)(error) }
    })
  }

  function problemOf({ statusCode, data, tempFilePath, filePath }) {
    const path = tempFilePath || filePath // where downloadFile has put the body
    return (statusCode >= 400 && tried(() => {
      let body = data === undefined && path ? api.getFileSystemManager().readFileSync(path, 'utf8') : data
      if (body.byteLength) body = String.fromCharCode.apply(null, new Uint8Array(body))
      return typeof body === 'string' ? JSON.parse(body) : body
    })) || {}
  }

  // Does what the problem in an answer asks for: one login, a few retries. `mend` says whether that can help.
  async function insist(attempt, mend, wanted = () => true) {
    for (let retries = RETRIES, logins = 1; ;) {
      const answer = await attempt()
      const problem = problemOf(answer)
      const wait = problem.action === 'retry' ? retryAfter(answer, problem) : 0
      const may = problem.action === 'login' ? logins-- > 0 : problem.action === 'retry' && retries-- > 0
      if (!may || wait > LONGEST_WAIT || !(await mend(problem))) return answer
      // A little more than asked for, or all phones come back in the same moment.
      if (wait) await sleep(wait * 1000 * (1 + Math.random() / 4))
      if (!wanted()) return answer
    }
  }

  function valueOf(answer) {
    if (answer.statusCode === 200 && answer.data && typeof answer.data === 'object') return answer.data
    const { code, detail } = problemOf(answer)
    throw failure(code || 'not_understood', detail || `The service answered ${answer.statusCode}`, answer)
  }

  // A new code for each try: WeChat may have used up the one before, whatever became of the answer.
  async function exchange() {
    await gate
    gate = sleep(GAP)
    const { code } = await ask('login', { timeout: 10000 })
    const data = Object.assign({ code }, appid ? { appid } : {}, device ? { device } : {})
    return ask('request', { url: `${base}/login`, method: 'POST', data, header: bearer({}, current()), timeout: 20000 })
  }

  async function logInNow() {
    const answer = await insist(exchange, () => true)
    const { token, expires_in: seconds } = valueOf(answer) || {}
    if (typeof token !== 'string' || !(seconds > 0)) throw failure('not_understood', 'This is no login', answer)
    hold({ token, endsAt: Date.now() + seconds * LIFE })
  }

  function login({ force = false } = {}) {
    if (!flight && (force || !alive())) {
      const over = () => { flight = null }
      flight = logInNow()
      flight.then(over, over)
    }
    return flight || Promise.resolve()
  }

  async function renew({ code }, sent) {
    if (!sent || current() !== sent) return true
    if (code === 'token_invalid') hold(null)
    return login({ force: true }).then(() => true)
  }

  async function call(name, options) {
    const url = ORIGIN.test(options.url) ? options.url : `${base}/${options.url.replace(/^\/+/, '')}`
    if (originOf(url) !== originOf(base)) return ask(name, options)
    let sent
    return insist(async () => {
      // A forced login that fails takes nothing from those who wait for it with a live token.
      await login().catch(error => { if (!alive()) throw error })
      sent = current()
      const data = typeof options.data === 'function' ? { data: await options.data() } : {}
      return ask(name, Object.assign({}, options, data, { url, header: bearer(options.header, sent) }))
    }, problem => !SPENT.includes(problem.code) && (problem.action === 'retry' || renew(problem, sent)),
    () => held !== null || flight !== null) // else a logout came in between, and nobody asked for a new login
  }

  async function logout() {
    if (flight) await flight.catch(() => {}) // or its token would come alive after the logout
    const token = current()
    hold(null)
    const end = () => ask('request', { url: `${base}/session`, method: 'DELETE', header: bearer({}, token) })
    const answer = token ? await insist(end, ({ action }) => action === 'retry').catch(() => ({})) : { statusCode: 401 }
    return answer.statusCode === 204 || answer.statusCode === 401
  }

  async function phone(code) {
    if (!code) throw failure('no_phone_code', 'The user gave no phone number')
    return valueOf(await call('request', { url: '/phone', method: 'POST', data: { code } }))
  }

  // `get` is called when a login is sure, and again after one: what WeChat sealed before it may be out of date.
  async function userData(get) {
    const data = async () => { const { encryptedData, iv } = await get(); return { encryptedData, iv } }
    return valueOf(await call('request', { url: '/userdata/decrypt', method: 'POST', data }))
  }

  const [request, uploadFile, downloadFile] = ['request', 'uploadFile', 'downloadFile'].map(it => call.bind(null, it))
  return { request, uploadFile, downloadFile, login, logout, phone, userData }
}

module.exports = { create }
