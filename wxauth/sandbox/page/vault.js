// The content of Redis: names, types, time limits, sizes and first bytes.

import { duration, has, say } from './text.js'
import { ask } from './wire.js'

const KINDS = [
  [/^wxa:\{[\w-]{22}\}$/, 'u'], [/^wxa:d:\{[\w-]{22}\}$/, 'd'], [/^wxa:d:.*:i$/, 'i'], [/^wxa:\{[^}]*\}:t:/, 't'],
  [/^wxa:\{[\w-]{22}\}:a$/, 'a'], [/^wxa:b:/, 'b'], [/^wxa:l:/, 'l'], [/^wxa:\{ready/, 'p'],
]

let known = null
let before = null
let clock = 0

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
    clearTimeout(clock)
    const { back_in: left, holds } = (await ask('GET', 'sandbox/redis')).data
    const gone = document.getElementById('redis-gone')
    gone.hidden = left === 0
    say(document.getElementById('redis-back'), 'redis.back', { n: Math.ceil(left) })
    this.show(holds)
    if (left > 0) clock = setTimeout(() => this.look().catch(() => {}), 500)
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
  add(item, 'code', 'name').textContent = key.key
  const facts = add(item, 'span', 'facts')
  add(facts, 'span').textContent = key.type
  add(facts, 'span').textContent = `${key.bytes} B`
  say(add(facts, 'span'), 'redis.left', { left: duration(key.ttl) })
  for (const [name, value] of Object.entries(key.fields ?? { '': key })) {
    const line = add(item, 'code', 'bytes')
    // In a user's hash only the name of a session's field, its id, has more than one character.
    const field = kind === 'd' ? `field.d.${name}` : `field.${name.length > 1 ? 'session' : name}`
    if (has(field)) say(add(line, 'b'), field)
    line.append(name ? ` ${name} ` : '', ...valueOf(value))
  }
  return item
}

/** Show a value as text, or as its size if it has other bytes than those of text. Those are shown on demand, as hex. */
function valueOf({ hex, bytes }) {
  const text = String.fromCharCode(...(hex.match(/../g) ?? []).map((byte) => parseInt(byte, 16)))
  if (bytes * 2 === hex.length && /^[ -~]*$/.test(text)) return [text]
  const raw = document.createElement('span')
  raw.className = 'raw'
  raw.textContent = ` ${hex.replace(/(.{8})(?=.)/g, '$1 ')}${bytes * 2 > hex.length ? ' …' : ''}`
  return [`${bytes} B`, raw]
}

function fingerprint({ bytes, hex, fields }) {
  return JSON.stringify([bytes, hex, fields])
}

function add(parent, name, kind = '') {
  const element = parent.appendChild(document.createElement(name))
  element.className = kind
  return element
}
