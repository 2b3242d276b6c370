// The content of Redis in words, and on demand the names of the keys and the first bytes.

import { counterOf, userOf } from './known.js'
import { duration, say } from './text.js'
import { ask } from './wire.js'

const KINDS = [
  [/^wxa:\{[\w-]{22}\}$/, 'u'], [/^wxa:d:\{[\w-]{22}\}$/, 'd'], [/^wxa:d:.*:i$/, 'i'], [/^wxa:\{[^}]*\}:t:/, 't'],
  [/^wxa:\{[\w-]{22}\}:a$/, 'a'], [/^wxa:b:/, 'b'], [/^wxa:l:/, 'l'], [/^wxa:\{ready/, 'probe'],
]

let known = null
let before = null
let timer = 0

export const Vault = {
  /** The content that is shown. */
  holds: null,

  /** Mark later changes. */
  mark() {
    before = known
  },

  /** `holds` is {total, keys}, or null while Redis can't be reached. */
  show(holds) {
    this.holds = holds
    document.getElementById('keys').hidden = holds === null
    if (holds === null) return
    document.getElementById('keys').replaceChildren(...keysIn(holds, before).children)
    known = new Map(holds.keys.map((key) => [key.key, fingerprint(key)]))
  },

  /** Read the content of Redis. While Redis is stopped, repeat every 500 ms. */
  async look() {
    clearTimeout(timer)
    const { back_in: left, holds } = (await ask('GET', 'sandbox/redis')).data
    const gone = document.getElementById('redis-gone')
    gone.hidden = left === 0
    say(document.getElementById('redis-back'), 'redis.back', { n: Math.ceil(left) })
    this.show(holds)
    if (left > 0) timer = setTimeout(() => this.look().catch(() => {}), 500)
  },

  /** Start Redis if it is stopped, and wait until the service is ready. Return whether it was stopped. */
  async mend() {
    if ((await ask('GET', 'sandbox/redis')).data.back_in === 0) return false
    await this.plugIn()
    for (let tries = 0; tries < 10 && (await ask('GET', 'readyz')).status !== 200; tries++) {
      await new Promise((done) => setTimeout(done, 200))
    }
    return true
  },

  /** Delete all keys. */
  async clear() {
    this.mark()
    await ask('DELETE', 'sandbox/redis/keys')
    await this.look()
  },

  async plugIn() {
    await ask('PUT', 'sandbox/redis')
    await this.look()
  },
}

/** Return a list of the keys. Keys that differ from `before` are marked. */
export function keysIn(holds, before = null) {
  const list = document.createElement('ul')
  list.className = 'keys'
  for (const key of holds.keys) list.append(entry(key, before !== null && before.get(key.key) !== fingerprint(key)))
  if (!holds.keys.length) say(list.appendChild(document.createElement('li')), 'redis.empty').className = 'muted'
  const more = holds.total - holds.keys.length
  if (more > 0) say(list.appendChild(document.createElement('li')), 'redis.more', { n: more }).className = 'muted'
  return list
}

function entry(key, fresh) {
  const item = document.createElement('li')
  item.className = fresh ? 'key fresh' : 'key'
  const kind = KINDS.find(([pattern]) => pattern.test(key.key))?.[1] ?? 'other'
  say(add(item, 'span', `kind kind-${kind}`), `kind.${kind}`)
  const held = add(item, 'div', 'held')
  for (const [name, value] of Object.entries(key.fields ?? { '': key })) {
    say(add(held, 'p'), ...saidOf(kind, key.key, name, value))
    add(held, 'code', 'raw').textContent = `${name} ${rawOf(value)}`
  }
  say(add(item, 'span', 'facts'), 'redis.left', { left: duration(key.ttl) })
  add(item, 'code', 'name raw').textContent = `${key.key} ${key.type}`
  return item
}

/** Say in words what a value is, as [key, values]. `name` is its field of a hash. */
function saidOf(kind, key, name, { hex, bytes }) {
  const values = { n: bytes, who: userOf(key.match(/\{(.+)\}/)?.[1]) }
  if (kind === 'u') return ofUser(name, hex, values)
  if (kind === 'd') return [`held.d.${name}`, { ...values, ...ofDevice(name, textOf(hex)) }]
  if (kind === 'l') {
    const { what, from, to } = counterOf(key)
    return ['held.l', { what, from: clock(from).slice(0, 5), to: clock(to).slice(0, 5), count: textOf(hex) }]
  }
  return [`held.${kind}`, values]
}

/** In a user's hash only the names of sessions and tickets have more than one character. */
function ofUser(name, hex, values) {
  if (name.length === 1) return [`held.${name}`, values]
  const left = Number(BigInt(`0x${hex.slice(0, 16)}`) / 1000000n) - Date.now() / 1000
  const life = left > 0 ? ['redis.left', { left: duration(left) }] : ['left.none']
  if (name.startsWith('t:')) return ['held.ticket', { ...values, life }]
  return ['held.session', { ...values, life, way: [`way.${textOf(hex.slice(32, 34))}`] }]
}

/** Times are in microseconds. */
function ofDevice(name, text) {
  if (['ends', 'polled'].includes(name)) return { value: clock(text / 1e6) }
  return { value: name === 'interval' ? text / 1e6 : text }
}

/** The time of day of Unix seconds. */
function clock(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, 8)
}

function textOf(hex) {
  return String.fromCharCode(...(hex.match(/../g) ?? []).map((byte) => parseInt(byte, 16)))
}

/** A value as text, or as hex if it has other bytes than those of text. */
function rawOf({ hex, bytes }) {
  const text = textOf(hex)
  if (bytes * 2 === hex.length && /^[ -~]*$/.test(text)) return text
  return `${hex.replace(/(.{8})(?=.)/g, '$1 ')}${bytes * 2 > hex.length ? ' …' : ''}`
}

function fingerprint({ bytes, hex, fields }) {
  return JSON.stringify([bytes, hex, fields])
}

function add(parent, name, kind = '') {
  const element = parent.appendChild(document.createElement(name))
  element.className = kind
  return element
}
