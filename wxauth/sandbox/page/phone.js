// The phone: its state, its screen and its requests. It acts only when a scene tells it to.

import { duration, has, say } from './text.js'
import { ask, send } from './wire.js'
import { codeGiven, ofExchange, problemOf } from './messages.js'

const USER = 'alice'

export class Phone {
  constructor({ second = false } = {}) {
    this.second = second
    this.token = null
  }

  /** Call wx.login. `outcome` sets the result of the code at WeChat. */
  async code(outcome) {
    const data = { user: USER, ...(outcome ? { outcome } : {}) }
    const exchange = await send('POST', 'sandbox/wx.login', { data })
    return { code: exchange.data.code, messages: [codeGiven(exchange, this.second)] }
  }

  /** Exchange the code for a token. With `lost`, the token is not stored. */
  async exchange(code, { lost = false, device } = {}) {
    const data = { code, ...(device ? { device } : {}) }
    const exchange = await send('POST', 'login', { data, token: this.token })
    const problem = problemOf(exchange)
    if (!problem && !lost) this.token = exchange.data.token
    return { exchange, problem, messages: ofExchange(exchange, { second: this.second, lost }) }
  }

  /** Send a request with the token, or with another one. A token whose session has ended is deleted. */
  async call(method, path, token = this.token) {
    const exchange = await send(method, path, { token })
    if (exchange.status === 401 && token === this.token) this.token = null
    return { exchange, problem: problemOf(exchange), messages: ofExchange(exchange, { second: this.second }) }
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
    const { openid, expires_in: left } = exchange.data
    const told = openid ? ['phone.known.told', { openid, left: duration(left) }] : ['phone.known.bare', { left: duration(left) }]
    this.draw({ who: ['phone.known'], else: told, buttons: ['whoami', 'logout'], token, known: true })
  },

  asking() {
    say(at('who'), 'phone.asking')
    say(at('whoelse'), 'phone.asking.told')
    at('problem').hidden = true
  },

  /** Show the problem, and one button for its action. */
  failed(token, problem, retryAfter) {
    this.draw({ who: null, else: null, buttons: ['cure'], token })
    at('problem').hidden = false
    at('problem-code').textContent = problem.status ? `${problem.status} ${problem.code}` : problem.code
    say(at('problem-told'), toldOf(problem))
    // Without an answer there is no action.
    at('problem-action').textContent = problem.status ? `"action": "${problem.action}"` : ''
    say(at('cure'), `cure.${problem.action}`, { n: retryAfter })
  },

  /** Show the second phone with this text, or hide it. It takes the place of a heading, so nothing moves. */
  other(text = null, out = false) {
    at('other').hidden = text === null
    at('breakage-head').hidden = text !== null
    at('other').classList.toggle('out', out)
    if (text) say(at('other-told'), text)
  },

  draw({ who, else: told, buttons, token, known = false }) {
    at('problem').hidden = true
    for (const [id, text] of [['who', who], ['whoelse', told]]) {
      at(id).hidden = text === null
      if (text) say(at(id), ...text)
    }
    at('avatar').classList.toggle('known', known)
    at('avatar').textContent = known ? 'A' : ''
    for (const id of ['cure', 'login', 'whoami', 'logout']) at(id).hidden = !buttons.includes(id)
    if (token) {
      delete at('pocket-token').dataset.t
      at('pocket-token').textContent = `${token.slice(0, 12)}…${token.slice(-4)}`
    } else say(at('pocket-token'), 'pocket.none')
  },
}

/** The text that tells the user of a problem. */
export function toldOf({ code }) {
  return has(`told.${code}`) ? `told.${code}` : 'told.other'
}
