// The phone: its state, its screen and its requests. It acts only when a scene tells it to.

import { counted, own } from './known.js'
import { duration, has, say } from './text.js'
import { ask, remember, remembered, send } from './wire.js'
import { given, ofExchange, problemOf, route } from './messages.js'

const STORED = 'wxauth token'

export class Phone {
  constructor({ second = false, user = 'alice' } = {}) {
    this.second = second
    this.user = user
    this.held = second ? null : remembered(STORED)
    own(this.held, user)
    /** The answer that gave the token. */
    this.seen = null
  }

  /** The first phone keeps it over a reload, as wx.setStorage does. */
  get token() {
    return this.held
  }

  set token(token) {
    this.held = token
    if (!this.second) remember(STORED, token)
  }

  /** Call wx.login. `more` sets the result of the code at WeChat. */
  async code(more) {
    const { data, messages } = await this.ask('wx.login', more)
    return { code: data.code, messages }
  }

  /** Press the phone button. */
  async number() {
    const { data, messages } = await this.ask('getPhoneNumber')
    return { code: data.code, messages }
  }

  /** Call wx.getUserProfile. Return the encrypted data. */
  async profile() {
    const { data, messages } = await this.ask('wx.getUserProfile')
    return { data: { encryptedData: data.encryptedData, iv: data.iv }, messages }
  }

  /** Ask WeChat. */
  async ask(name, more = {}) {
    const exchange = await send('POST', `sandbox/${name}`, { data: { user: this.user, ...more } })
    return { data: exchange.data, messages: [given(name, exchange, this.second)] }
  }

  /** Exchange the code for a token. With `lost`, the token is not stored. */
  async exchange(code, { lost = false, device } = {}) {
    const data = { code, ...(device ? { device } : {}) }
    const exchange = await this.send('POST', 'login', { data, token: this.token })
    const problem = problemOf(exchange)
    own(exchange.data?.token, this.user)
    if (!problem && !lost) Object.assign(this, { token: exchange.data.token, seen: exchange })
    return { exchange, problem, messages: ofExchange(exchange, { second: this.second, lost }) }
  }

  /** Send a request with the token, or with another one. A token whose session has ended is deleted. */
  async call(method, path, { token = this.token, data } = {}) {
    const exchange = await this.send(method, path, { token, data })
    const ended = exchange.status === 401 || exchange.data?.code === 'user_banned'
    if (ended && token === this.token) this.token = null
    return { exchange, problem: problemOf(exchange), messages: ofExchange(exchange, { second: this.second }) }
  }

  async send(...request) {
    const exchange = await send(...request)
    counted(route(exchange), exchange.notes, this.user)
    return exchange
  }

  async logOut() {
    const done = await this.call('DELETE', 'session')
    if (!done.problem) this.token = null
    return done
  }

  /** Expire the session of the token. */
  expire() {
    return ask('POST', 'sandbox/expire', { token: this.token })
  }
}

const at = (id) => document.getElementById(id)

/** The screen of the phone. */
export const Screen = {
  nobody() {
    this.draw({ who: ['phone.nobody'], else: ['phone.nobody.told'], buttons: ['login'], token: null })
  },

  known(token, exchange) {
    const { data } = exchange
    const name = ['openid', 'phoneNumber', 'nickName'].find((it) => it in data) ?? 'bare'
    const told = [`phone.known.${name}`, { ...data, left: duration(data.expires_in) }]
    this.draw({ who: ['phone.known'], else: told, buttons: ['whoami', 'logout'], token, known: true })
  },

  asking() {
    say(at('who'), 'phone.asking')
    say(at('whoelse'), 'phone.asking.told')
    at('problem').hidden = true
  },

  /** Show that there is a code to scan on the laptop, or that there is none. */
  scanner(token, ready = false) {
    const key = ready ? 'phone.ready' : 'phone.waiting'
    this.draw({ who: [key], else: [`${key}.told`], buttons: ready ? ['scan'] : [], token, known: token !== null })
  },

  /** Ask the user whether the website may log in (RFC 8628, 5.4): who asks, how long ago, from which network. */
  confirm({ client_name: client, created_at: at, network }, code) {
    const ago = duration(Date.now() / 1000 - at)
    this.draw({ who: ['phone.confirm', { client }], else: ['phone.confirm.told', { ago, network, code }], buttons: ['approve', 'deny'], known: true })
  },

  /** Show the result of a scan. */
  scanned(key) {
    this.draw({ who: [key], else: [`${key}.told`], buttons: [], known: true })
  },

  /** Show the problem, and one button for its action. */
  failed(token, problem, retryAfter) {
    this.draw({ who: null, else: null, buttons: ['cure'], token })
    at('problem').hidden = false
    at('problem-code').textContent = problem.status ? `${problem.status} ${problem.code}` : problem.code
    say(at('problem-told'), toldOf(problem, token))
    // Without an answer there is no action.
    at('problem-action').textContent = problem.status ? `"action": "${problem.action}"` : ''
    say(at('cure'), has(`cure.${problem.code}`) ? `cure.${problem.code}` : `cure.${problem.action}`, { n: retryAfter })
  },

  /** Show the second phone with this text, or hide it. It takes the place of a heading, so nothing moves. */
  other(text = null, out = false) {
    at('other').hidden = text === null
    at('breakage-head').hidden = text !== null
    at('other').classList.toggle('out', out)
    if (text) say(at('other-told'), text)
  },

  /** Without `token`, what the phone shows of it stays. */
  draw({ who, else: told, buttons, token, known = false }) {
    at('problem').hidden = true
    for (const [id, text] of [['who', who], ['whoelse', told]]) {
      at(id).hidden = text === null
      if (text) say(at(id), ...text)
    }
    at('avatar').classList.toggle('known', known)
    at('avatar').textContent = known ? 'A' : ''
    for (const button of at('phone-buttons').children) button.hidden = !buttons.includes(button.id)
    if (token !== undefined) this.pocket(token)
  },

  pocket(token) {
    at('copy-token').hidden = !token
    if (token) {
      delete at('pocket-token').dataset.t
      at('pocket-token').textContent = `${token.slice(0, 12)}…${token.slice(-4)}`
    } else say(at('pocket-token'), 'pocket.none')
  },
}

/** The text that tells the user of a problem. Without a token, the user is not logged in. */
export function toldOf({ code }, token) {
  const key = `told.${code}`
  return !token && has(`${key}.out`) ? `${key}.out` : has(key) ? key : 'told.other'
}
