// Send requests to the service, and read the calls to WeChat and Redis that each one caused. Keep values over a reload.

/** Headers of an answer that a client needs. */
const TELLING = ['Content-Type', 'WWW-Authenticate', 'Retry-After', 'X-WXAuth-Mode']

export class Unreachable extends Error {}

/**
 * Send one request. Its body is `data` (JSON) or `form`. Return `request` and `answer` as {line, headers, body,
 * bytes}, `status`, `data` (the JSON, or null), `image` (a Blob, or null), `at` (Unix milliseconds), `ms`, and `notes`:
 * the calls of the server to WeChat and Redis.
 */
export async function send(method, path, body = {}) {
  const options = optionsOf(method, body)
  const at = performance.timeOrigin + performance.now()
  const { response, image, text, ms } = await exchanged(path, options)
  return {
    image,
    at,
    ms,
    method,
    path,
    status: response.status,
    data: parsed(text),
    retryAfter: Number(response.headers.get('retry-after') ?? 0),
    request: shown(`${method} /${path}`, Object.entries(options.headers), options.body ?? ''),
    answer: { ...shown(`${response.status} ${response.statusText}`, telling(response.headers), text), ...(image && { bytes: image.size }) },
    notes: path.startsWith('sandbox/') ? [] : await notesOf(response.headers.get('x-wxauth-request')),
  }
}

/** Send a request to the sandbox itself. It is not shown as a message. */
export async function ask(method, path, body = {}) {
  const { response, text } = await exchanged(path, optionsOf(method, body))
  return { status: response.status, data: parsed(text) }
}

function optionsOf(method, { token, data, form }) {
  const headers = {}
  if (data) headers['Content-Type'] = 'application/json'
  if (form) headers['Content-Type'] = 'application/x-www-form-urlencoded'
  if (token) headers.Authorization = `Bearer ${token}`
  const body = form ? String(new URLSearchParams(form)) : data && JSON.stringify(data)
  // Without credentials, a challenge of Basic opens no dialog of the browser.
  return { method, headers, body, cache: 'no-store', credentials: 'omit' }
}

async function exchanged(path, options) {
  const started = performance.now()
  try {
    const response = await fetch(path, options)
    const body = await response.blob()
    const image = body.type.startsWith('image/') ? body : null
    const text = image ? `(${body.size} bytes)` : await body.text()
    return { response, image, text, ms: performance.now() - started }
  } catch (error) {
    throw new Unreachable(String(error))
  }
}

async function notesOf(request) {
  return (await ask('GET', `sandbox/trace/${request}`)).data.notes
}

function shown(line, headers, body) {
  return { line, headers: Object.fromEntries(headers), body: pretty(body), bytes: size(body) }
}

function telling(headers) {
  return TELLING.filter((name) => headers.has(name)).map((name) => [name, headers.get(name)])
}

function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function pretty(text) {
  const data = parsed(text)
  return data === null ? text : JSON.stringify(data, null, 2)
}

function size(text) {
  return new TextEncoder().encode(text).length
}

/** Return what `remember` stored under `name`, or null. */
export function remembered(name) {
  try {
    return localStorage.getItem(name)
  } catch {
    return null
  }
}

export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(name)
    else localStorage.setItem(name, value)
  } catch {
    // Without storage, the value is lost when the page is closed.
  }
}
