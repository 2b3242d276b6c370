// Log a user in on a website with the mini program: by a scan (RFC 8628), or by a ticket in a <web-view>.
//
//   import { scanLogin } from './wxauth-web.js'
//   const element = document.querySelector('#login')
//   const { access_token } = await scanLogin({ baseURL: 'https://login.example.com', clientId: 'console', element })
//
// The service needs `clientId` in WXAUTH_PUBLIC_CLIENTS and the origin of the page in WXAUTH_CORS_ORIGINS.
// This file stores no token. Keep it in memory or in sessionStorage, and never put it into an address.

const GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
const ENDED = ['expired_token', 'invalid_grant'] // invalid_grant: the code was used, or the service has lost it
const TIMEOUT = 10000 // ms
const MAX_PAUSE = 30 // seconds between two polls while the service does not answer
const RETRIES = 2 // of other requests
const RETRY_PAUSE = 2 // seconds

const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000))
const createError = (code, message, more) => Object.assign(new Error(`${code}: ${message}`), { code }, more)

async function untilVisible() {
  const change = resolve => document.addEventListener('visibilitychange', resolve, { once: true })
  while (document.hidden) await new Promise(change)
}

// Return the JSON of a success. Otherwise reject: `code` is `unavailable`, or the code that the service gave.
async function post(baseURL, path, options) {
  const url = baseURL.replace(/\/+$/, '') + path
  const common = { method: 'POST', credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout?.(TIMEOUT) }
  let answer, body
  try {
    answer = await fetch(url, { ...common, ...options })
    body = await answer.json()
  } catch (cause) {
    const hint = `No answer from ${url}. If it is up, add ${location.origin} to WXAUTH_CORS_ORIGINS.`
    throw createError('unavailable', hint, { cause, retryAfter: 0 })
  }
  if (answer.ok && body) return body
  const { error, error_description: description, code, detail } = body || {}
  const message = description || detail || `The service answered ${answer.status}`
  if (answer.status !== 429 && answer.status < 500) throw createError(error || code || 'not_understood', message)
  throw createError('unavailable', message, { retryAfter: Number(answer.headers.get('Retry-After')) || 0 })
}

// Repeat `work` while the service does not answer, unless it asks for a long wait.
async function withRetries(work) {
  for (let left = RETRIES; ; left--) {
    try {
      return await work()
    } catch (error) {
      if (error.code !== 'unavailable' || !left || error.retryAfter > MAX_PAUSE) throw error
      await sleep(Math.max(error.retryAfter, RETRY_PAUSE))
    }
  }
}

// Show the code and load its image.
async function show(element, { qr_code: src, user_code: code }, alt) {
  const image = Object.assign(document.createElement('img'), { alt, referrerPolicy: 'no-referrer' })
  element.replaceChildren(image, Object.assign(document.createElement('p'), { textContent: code }))
  const error = createError('unavailable', `No image from ${src}`, { retryAfter: 0 })
  const load = (onload, fail) => Object.assign(image, { src, onload, onerror: () => fail(error) })
  await withRetries(() => new Promise(load))
}

// Poll until the user has answered. Return null if the code has ended.
async function poll(send, { device_code, interval = 5, expires_in }) {
  const end = Date.now() + expires_in * 1000
  for (let pause = interval; ;) {
    await sleep(pause)
    try {
      return await send('/token', { grant_type: GRANT, device_code })
    } catch (error) {
      const isUnavailable = error.code === 'unavailable'
      if (ENDED.includes(error.code) || (isUnavailable && Date.now() > end)) return null
      if (error.code === 'slow_down') interval += 5
      else if (!isUnavailable && error.code !== 'authorization_pending') throw error
      pause = isUnavailable ? Math.max(error.retryAfter, Math.min(pause * 2, MAX_PAUSE)) : interval
    }
  }
}

// Show a code in `element` until the user has scanned it and answered on the phone. Renew it when it expires. While the
// page is hidden, send nothing. Resolve to { access_token, token_type, expires_in }. Reject with an error: `code` is
// `access_denied` (the user refused), `unavailable` (no connection, or the service is overloaded), or the code of a wrong
// configuration, as `invalid_client`. If `signal` is aborted, reject with its reason.
export async function scanLogin({ baseURL, clientId, element, appid, alt = '微信扫码登录', signal }) {
  const check = () => { if (signal?.aborted) throw signal.reason }
  const aborted = new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
  async function send(path, fields) {
    await untilVisible()
    check()
    const answer = await post(baseURL, path, { body: new URLSearchParams({ client_id: clientId, ...fields }) })
    check()
    return answer
  }
  async function run() {
    const code = await withRetries(() => send('/device_authorization', appid ? { appid } : {}))
    await show(element, code, alt)
    return (await poll(send, code)) || run()
  }
  try {
    return await Promise.race([run(), aborted])
  } finally {
    element.replaceChildren()
  }
}

// Log in the page of a <web-view> with the ticket in its address, `#ticket=…`, and remove the ticket from the address.
// Resolve as `scanLogin` does, or to null if there is no ticket. Reject with `code_invalid` if the ticket was used or is
// older than a minute: the mini program has to open the page with a new one.
export async function ticketLogin({ baseURL, device }) {
  const [found] = /[#&]ticket=[^&]*/.exec(location.hash) || []
  if (!found) return null
  const rest = location.hash.replace(found, '').replace(/^&/, '#')
  history.replaceState(history.state, '', location.href.slice(0, -location.hash.length) + rest)
  const body = JSON.stringify({ ticket: new URLSearchParams(found.slice(1)).get('ticket'), device })
  const headers = { 'Content-Type': 'application/json' }
  const { token, token_type, expires_in } = await withRetries(() => post(baseURL, '/login', { body, headers }))
  return { access_token: token, token_type, expires_in }
}
