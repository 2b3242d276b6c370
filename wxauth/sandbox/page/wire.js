// Requests to the service, as they went over the wire; and what the service said to WeChat and Redis meanwhile.

/** Headers of an answer that a client has a use for. */
const TELLING = ['Content-Type', 'WWW-Authenticate', 'Retry-After', 'X-WXAuth-Mode']

export class Unreachable extends Error {}

/**
 * Sends one request. The exchange that comes back has `request` and `answer` as {line, headers, body, bytes}, `status`,
 * `data` (the JSON, or null), `at` (Unix milliseconds), `ms`, and `notes`: what the server said to others.
 */
export async function send(method, path, { token, data } = {}) {
  const headers = {}
  if (data !== undefined) headers['Content-Type'] = 'application/json'
  if (token) headers.Authorization = `Bearer ${token}`
  const body = data === undefined ? '' : JSON.stringify(data)
  const at = performance.timeOrigin + performance.now()
  const { response, text, ms } = await exchanged(path, { method, headers, body: body || undefined, cache: 'no-store' })
  return {
    at,
    ms,
    method,
    path,
    status: response.status,
    data: parsed(text),
    retryAfter: Number(response.headers.get('retry-after') ?? 0),
    request: shown(`${method} /${path}`, Object.entries(headers), body),
    answer: shown(`${response.status} ${response.statusText}`, telling(response.headers), text),
    notes: path.startsWith('sandbox/') ? [] : await notesOf(response.headers.get('x-wxauth-request')),
  }
}

/** What is asked of the sandbox itself: no message of the login. */
export async function ask(method, path, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {}
  const { response, text } = await exchanged(path, { method, headers, cache: 'no-store' })
  return { status: response.status, data: parsed(text) }
}

async function exchanged(path, options) {
  const started = performance.now()
  try {
    const response = await fetch(path, options)
    const text = await response.text()
    return { response, text, ms: performance.now() - started }
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
