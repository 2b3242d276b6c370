// Convert an exchange into messages in order, each with an explanation. Does not use the DOM.

import { has } from './text.js'

/**
 * A message: sender and receiver, the labels of the arrow (`out`, and `back` if it includes the answer), its title, an
 * explanation as [key, values], whether it failed, its time and size, and its details.
 */
export function given(name, exchange, second = false) {
  return {
    from: 'phone', to: 'wechat', out: `${name}()`, back: exchange.data.code ? 'code' : 'encryptedData', title: `${name}()`, told: [`ask.${name}`], second,
    at: exchange.at, ms: exchange.ms,
    bytes: ['bytes.bodies', { out: exchange.request.bytes, back: exchange.answer.bytes }], parts: http(exchange), remark: 'open.played',
  }
}

/** The phone reads the code on the laptop. */
export function scanned(userCode, second = false) {
  return {
    from: 'laptop', to: 'phone', out: 'scene', title: 'onLoad({ scene })', told: ['ask.scan'], second,
    parts: [['open.scene', `scene=${userCode}`]], remark: 'open.scanned',
  }
}

/** The request of `by` (phone or laptop), the calls of the server to WeChat and Redis, and the answer. */
export function ofExchange(exchange, { by = 'phone', second = false, lost = false } = {}) {
  return [asked(exchange, by, second), ...between(exchange, second), answered(exchange, by, second, lost)]
}

/** The problem of an answer, or null. The errors of OAuth have no action. */
export function problemOf({ status, data }) {
  return status < 400 ? null : data.code ? data : { status, code: data.error, action: 'none' }
}

/** The method and the path, with a placeholder for a user_code. */
export function route({ method, path }) {
  return `${method} /${path.replace(/^device\/[\w-]+/, 'device/<user_code>')}`
}

const CARRIED = {
  'POST /login': 'code', 'POST /device_authorization': 'client_id', 'GET /device/<user_code>.png': 'user_code', 'POST /token': 'device_code',
  'GET /device/<user_code>': 'user_code', 'POST /device/<user_code>': 'approve', 'POST /phone': 'code', 'POST /userdata/decrypt': 'encryptedData',
}
const GOT = {
  'POST /login': 'token', 'GET /session': 'openid', 'GET /sessions': 'sessions', 'POST /device_authorization': 'codes',
  'GET /device/<user_code>.png': 'image', 'POST /token': 'token', 'GET /device/<user_code>': 'client, network',
  'POST /phone': 'number', 'POST /userdata/decrypt': 'profile',
}
/** Labels of codes that are longer than their arrows. */
const SHORT = {
  authorization_pending: 'pending', access_denied: 'denied', expired_token: 'expired', store_unavailable: 'unavailable',
  wechat_unreachable: 'unreachable', wechat_misconfigured: 'misconfigured', session_key_stale: 'stale', session_replaced: 'replaced',
  session_revoked: 'revoked',
}

function asked(exchange, by, second) {
  const title = `${exchange.method} /${exchange.path}`
  const told = `ask.${route(exchange)}`
  return {
    from: by, to: 'server', out: CARRIED[route(exchange)] ?? 'token', title, told: [has(`${told}.${by}`) ? `${told}.${by}` : told], second,
    at: exchange.at, bytes: body(exchange.request), parts: [['open.asked', text(exchange.request)], ['open.curl', curl(exchange)]],
  }
}

/** The request as a command of a shell. */
function curl({ method, path, request: { headers, body } }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`
  const options = Object.entries(headers).map(([name, value]) => ` -H ${quoted(`${name}: ${value}`)}`)
  return `curl -X ${method} ${quoted(String(new URL(path, document.baseURI)))}${options.join('')}${body && ` -d ${quoted(body)}`}`
}

function answered(exchange, by, second, lost) {
  const problem = problemOf(exchange)
  const got = GOT[route(exchange)] ?? String(exchange.status)
  return {
    from: 'server', to: by, out: problem ? SHORT[problem.code] ?? problem.code : `${got}${lost ? ' ✕' : ''}`, second, lost,
    title: problem ? `${exchange.status} ${problem.code}` : exchange.answer.line,
    wrong: problem !== null && problem.code !== 'authorization_pending',
    told: problem ? toldOf(problem, exchange) : toldOfSuccess(exchange, lost),
    at: exchange.at + exchange.ms, ms: exchange.ms, bytes: body(exchange.answer),
    parts: [['open.answered', text(exchange.answer)]],
  }
}

function toldOfSuccess(exchange, lost) {
  if (lost) return ['answer.lost']
  return [`answer.${route(exchange)}`, { n: exchange.data?.sessions?.length }]
}

function toldOf(problem, exchange) {
  if (!has(`answer.${problem.code}`)) return ['answer.other', { action: problem.action }]
  if (has(`answer.${problem.code}.${exchange.path}`)) return [`answer.${problem.code}.${exchange.path}`]
  const unasked = exchange.notes.length === 0 && ['token_invalid', 'store_unavailable'].includes(problem.code)
  return [`answer.${problem.code}${unasked ? '.unasked' : ''}`]
}

/** Consecutive Redis notes are one message. */
function between(exchange, second) {
  const runs = []
  for (const note of exchange.notes) {
    if (note.with === 'redis' && runs.at(-1)?.[0].with === 'redis') runs.at(-1).push(note)
    else runs.push([note])
  }
  return runs.map((run, index) => ({
    ...(run[0].with === 'redis' ? ofRedis(run, exchange, runs.slice(index + 1).some(([next]) => next.with === 'wechat')) : ofWeChat(run[0])),
    second,
  }))
}

/** For each interface of WeChat: what is sent, what is returned, and the key of its text. */
const INTERFACES = {
  '/sns/jscode2session': ['code, AppSecret', 'openid, session_key', 'ok'],
  '/cgi-bin/stable_token': ['AppSecret', 'access_token', 'token'],
  '/wxa/business/getuserphonenumber': ['code', 'number', 'number'],
  '/wxa/getwxacodeunlimit': ['scene', 'image', 'image'],
}

function ofWeChat(note) {
  const title = note.request.line.split('?')[0]
  const [out, back, told] = INTERFACES[title.split(' ')[1]]
  const data = note.answer ? JSON.parse(note.answer.body.startsWith('{') ? note.answer.body : '{}') : {}
  const wrong = !note.answer || note.answer.body.startsWith('<') || Boolean(data.errcode)
  return {
    from: 'server', to: 'wechat', out, back: wrong ? errcode(data) : back, wrong,
    title, told: [`wechat.${wrong ? meaning(note, data) : told}`], at: note.at, ms: note.ms,
    bytes: ['bytes.both', { out: note.request.bytes, back: note.answer?.bytes ?? 0 }],
    parts: http(note), remark: told === 'image' ? 'open.image' : 'open.dots',
  }
}

function errcode(data) {
  return data.errcode === undefined ? '✕' : `errcode ${data.errcode}`
}

function meaning(note, data) {
  if (!note.answer) return 'silent'
  return [-1, 40163, 40164, 40226].includes(data.errcode) ? data.errcode : 'other'
}

/** `before`: whether the server asks WeChat after it. */
function ofRedis(run, exchange, before) {
  const commands = run.flatMap((note) => note.commands)
  const wrong = run.every((note) => note.error)
  const does = purpose(exchange, before, wrong)
  return {
    from: 'server', to: 'redis', minor: before && !wrong, wrong, title: 'Redis',
    out: wrong ? 'connect ✕' : `${said(commands)}${does === 'store' ? ': session' : ''}`, back: wrong ? undefined : '', told: [`redis.${does}`],
    trips: trips(run.length, wrong), at: run[0].at, ms: sum(run, 'ms'), bytes: wrong ? null : ['bytes.sent', { n: sum(run, 'bytes') }],
    parts: [['open.said', run.map(conversation).join('\n\n')]], holds: run.at(-1).holds,
  }
}

const WRITES = ['EVALSHA', 'SET', 'DEL', 'PUBLISH']
const FRAME = ['SCRIPT', 'PTTL', 'TIME']

/** The label of a Redis arrow: the writing commands, or the reading ones if there are no others. */
function said(commands) {
  const names = [...new Set(commands.map(([name]) => name))]
  const writes = names.filter((name) => WRITES.includes(name))
  return (writes.length ? writes : names.filter((name) => !FRAME.includes(name))).join(', ')
}

function purpose(exchange, before, wrong) {
  if (wrong) return 'gone'
  if (before) return { login: 'check', phone: 'check.phone' }[exchange.path] ?? 'before'
  if (exchange.path === 'login') return { 200: 'store', 429: 'limit' }[exchange.status] ?? 'look'
  if (exchange.status === 401) return exchange.data.action === 'ask' ? 'ended' : 'absent'
  if (has(`redis.${route(exchange)}`)) return route(exchange)
  return exchange.method === 'DELETE' ? 'end' : 'read'
}

function conversation(note) {
  const lines = note.commands.map((command, index) => `> ${command.map(word).join(' ')}\n< ${word(note.replies[index])}`)
  return [...lines, ...(note.error ? [`! ${note.error}`] : [])].join('\n')
}

function word(value) {
  if (value === null || value === undefined) return '(nil)'
  if (Array.isArray(value)) return `[${value.map(word).join(', ')}]`
  if (typeof value === 'object') return `<${value.bytes} bytes: ${value.hex}…>`
  return value === '' ? '""' : String(value)
}

function http(exchange) {
  const answer = exchange.answer ? text(exchange.answer) : exchange.error
  return [['open.asked', text(exchange.request)], ['open.answered', answer]]
}

function text({ line, headers, body }) {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return [line, ...lines].join('\n') + (body ? `\n\n${body}` : '')
}

function trips(n, wrong) {
  if (wrong) return ['redis.tries', { n }]
  return [n === 1 ? 'redis.trip' : 'redis.trips', { n }]
}

function body({ bytes }) {
  return bytes ? ['bytes.body', { n: bytes }] : null
}

function sum(notes, name) {
  return notes.reduce((total, note) => total + (note[name] ?? 0), 0)
}
