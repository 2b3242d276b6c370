// Send requests to the service, and read the calls to WeChat and Redis that each one caused.

/** Headers of an answer that a client needs. */
const TELLING = ['Content-Type', 'WWW-Authenticate', 'Retry-After', 'X-WXAuth-Mode']

export class Unreachable extends Error {}

/**
 * Send one request. Return `request` and `answer` as {line, headers, body, bytes}, `status`, `data` (the JSON, or
 * null), `at` (Unix milliseconds), `ms`, and `notes`: the calls of the server to WeChat and Redis.
 */
export async function send(method, path, { token, data } = {}) {
  const options = optionsOf(method, token, data)
  const at = performance.timeOrigin + performance.now()
  const { response, text, ms } = await exchanged(path, options)
  return {
    at,
    ms,
    method,
    path,
    status: response.status,
    data: parsed(text),
    retryAfter: Number(response.headers.get('retry-after') ?? 0),
    request: shown(`${method} /${path}`, Object.entries(options.headers), options.body ?? ''),
    answer: shown(`${response.status} ${response.statusText}`, telling(response.headers), text),
    notes: path.startsWith('sandbox/') ? [] : await notesOf(response.headers.get('x-wxauth-request')),
  }
}

/** Send a request to the sandbox itself. It is not shown as a message. */
export async function ask(method, path, { token, data } = {}) {
  const { response, text } = await exchanged(path, optionsOf(method, token, data))
  return { status: response.status, data: parsed(text) }
}

function optionsOf(method, token, data) {
  const headers = {}
  if (data !== undefined) headers['Content-Type'] = 'application/json'
  if (token) headers.Authorization = `Bearer ${token}`
  return { method, headers, body: data === undefined ? undefined : JSON.stringify(data), cache: 'no-store' }
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
