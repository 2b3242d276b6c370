// The scenes: login, and its failures. All requests are real.

import { Phone, Screen, toldOf } from './phone.js'
import { has } from './text.js'
import { ask, Unreachable } from './wire.js'
import { Vault } from './vault.js'

/** Scenes that also run while Redis is stopped. The others start it first. */
const ORDINARY = ['login', 'whoami', 'logout']

/** What the sandbox does when the button of a problem is pressed: a request, or nothing. Then the phone logs in. */
const REPAIRS = {
  rate_limited: () => ask('DELETE', 'sandbox/login_rate'),
  user_banned: () => ask('DELETE', 'sandbox/ban', { data: { user: 'alice' } }),
  wechat_misconfigured: () => {},
}

/** The preparation of a scene failed, so the scene ends. */
export class Halted extends Error {
  constructor(done) {
    super('halted')
    this.done = done
  }
}

export class Scenes {
  constructor(diagram) {
    this.diagram = diagram
    this.phone = new Phone()
    /** The second phone, while it is on the page. */
    this.other = null
    this.cure = async () => {}
  }

  /** Show the initial state of the login of the mini program. */
  rest() {
    this.diagram.stage('mini')
    this.diagram.entitle('idle')
    this.dismissOther()
    if (this.phone.token && this.phone.seen) Screen.known(this.phone.token, this.phone.seen)
    else Screen.nobody()
    return Vault.look()
  }

  /** A phone with a token from before a reload asks whose it is. */
  async wake() {
    if (!this.phone.token) return
    const { exchange, problem } = await this.phone.call('GET', 'session')
    this.phone.seen = exchange
    if (problem && this.phone.token) this.fail(problem, exchange.retryAfter)
    else this.rest()
  }

  dismissOther() {
    this.other = null
    Screen.other()
  }

  async play(scene) {
    this.diagram.begin(scene)
    this.dismissOther()
    await this.guarded(async () => {
      for (const limit of ['max_sessions', 'login_rate']) await ask('DELETE', `sandbox/${limit}`)
      if (!ORDINARY.includes(scene)) {
        if (await Vault.mend()) this.diagram.aside('first.plug')
        await REPAIRS.user_banned()
      }
      await this[scene]()
    })
  }

  async guarded(doing) {
    Screen.asking()
    try {
      await Vault.look()
      await doing()
      await Vault.look()
    } catch (error) {
      if (error instanceof Halted) await this.end(error.done)
      else if (error instanceof Unreachable) this.fail({ code: 'unreachable', action: 'none' }, 0)
      else throw error
    }
  }

  // --- Ordinary scenes

  async login(outcome) {
    const { code, messages } = await this.phone.code(outcome && { outcome })
    await this.diagram.play(messages)
    await this.end(await this.phone.exchange(code), 'login')
  }

  async whoami() {
    await this.end(await this.phone.call('GET', 'session'), 'whoami')
  }

  async logout() {
    await this.end(await this.phone.logOut(), 'logout')
  }

  // --- Failures

  async used() {
    await this.beNobody()
    const { code, messages } = await this.phone.code()
    await this.diagram.play(messages)
    await this.diagram.play((await this.phone.exchange(code, { lost: true })).messages)
    await this.end(await this.phone.exchange(code))
  }

  async expired() {
    await this.beKnown()
    const { status } = await this.phone.expire()
    this.diagram.aside('aside.expire', { status })
    await this.whoami()
  }

  async busy() {
    await this.beNobody()
    await this.login('-1')
  }

  async blocked() {
    await this.beNobody()
    await this.login('40226')
  }

  /** WeChat does not answer. */
  async stalled() {
    await this.beNobody()
    await this.login('stall')
  }

  /** The address of the server is not on the IP list. */
  async unlisted() {
    await this.beNobody()
    await this.login('40164')
  }

  async limited() {
    await this.beNobody()
    const { status } = await ask('PUT', 'sandbox/login_rate', { data: { per_minute: 1 } })
    this.diagram.aside('aside.rate', { status })
    const other = new Phone({ second: true, user: 'bob' })
    const { exchange } = await other.exchange((await other.code()).code)
    this.diagram.aside('first.network', { status: exchange.status })
    await this.login()
  }

  async banned() {
    await this.beKnown()
    const { status } = await ask('PUT', 'sandbox/ban', { data: { user: this.phone.user } })
    this.diagram.aside('aside.ban', { status })
    await this.whoami()
  }

  async number() {
    await this.beKnown()
    const { code, messages } = await this.phone.number()
    await this.diagram.play(messages)
    await this.end(await this.phone.call('POST', 'phone', { data: { code } }), 'number')
  }

  /** The service keeps the newest session_key and the previous one. */
  async stale() {
    await this.beKnown()
    const { data, messages } = await this.phone.profile()
    await this.diagram.play(messages)
    for (let n = 0; n < 2; n++) await this.phone.exchange((await this.phone.code({ new_key: true })).code)
    this.diagram.aside('aside.keys')
    await this.decrypt(data)
  }

  async decrypt(data) {
    await this.end(await this.phone.call('POST', 'userdata/decrypt', { data }), 'decrypt')
  }

  async gone() {
    await this.beKnown()
    const { data } = await ask('DELETE', 'sandbox/redis')
    this.diagram.aside('aside.gone', { n: Math.round(data.back_in) })
    await Vault.look()
    await this.whoami()
  }

  async elsewhere() {
    await this.beKnown()
    const other = await this.secondPhone()
    await this.diagram.play((await other.call('DELETE', 'sessions?keep=current')).messages)
    await this.whoami()
  }

  /** With one session for each user, a login on one phone ends the session of the other. */
  async second() {
    const { status } = await ask('PUT', 'sandbox/max_sessions', { data: { max_sessions: 1 } })
    this.diagram.aside('aside.one', { status })
    await this.beKnown()
    Screen.other('phone.nobody')
    this.other = await this.secondPhone()
    Screen.other('phone.known')
    await this.whoami()
  }

  async two() {
    await this.beNobody()
    const phones = [this.phone, new Phone({ second: true })]
    const codes = await Promise.all(phones.map((phone) => phone.code()))
    await this.diagram.play(inOrder(codes))
    const logins = await Promise.all(phones.map((phone, place) => phone.exchange(codes[place].code)))
    await this.diagram.play(inOrder(logins))
    const failed = logins.find(({ problem }) => problem)
    if (failed) return this.end({ ...failed, messages: [] })
    await this.diagram.play((await this.phone.call('GET', 'sessions')).messages)
    await this.end({ ...logins[0], messages: [] }, 'two')
  }

  async forged() {
    await this.beKnown()
    const token = this.phone.token
    const forged = token.slice(0, -5) + (token.at(-5) === 'A' ? 'B' : 'A') + token.slice(-4)
    await this.end(await this.phone.call('GET', 'session', { token: forged }))
  }

  // --- The end of a scene

  /** Draw the messages, and show the result on the phone. */
  async end({ exchange, problem, messages }, lesson) {
    await this.diagram.play(messages)
    if (problem) return this.fail(problem, exchange.retryAfter)
    this.diagram.lesson(lesson)
    if (this.phone.token) Screen.known(this.phone.token, exchange)
    else Screen.nobody()
  }

  fail(problem, retryAfter) {
    Screen.failed(this.phone.token, problem, retryAfter)
    this.diagram.lesson(!this.phone.token && has(`lesson.${problem.code}.out`) ? `${problem.code}.out` : problem.code)
    this.cure = () => (problem.action === 'none' && !(problem.code in REPAIRS) ? this.settle() : this.guarded(() => this.act(problem, retryAfter)))
  }

  /** Follow the action of a problem. */
  async act({ action, code }, retryAfter) {
    if (code in REPAIRS) {
      await REPAIRS[code]()
      this.diagram.aside(`aside.${code}`)
      return this.login()
    }
    if (action === 'retry') {
      this.diagram.aside('aside.wait', { n: retryAfter })
      await new Promise((done) => setTimeout(done, retryAfter * 1000))
    }
    const repeated = code === 'token_invalid' || (code === 'store_unavailable' && this.phone.token)
    if (action === 'login' || !this.phone.token) await this.login()
    if (repeated && this.phone.token) await this.whoami()
    if (code === 'session_key_stale' && this.phone.token) await this.renewed()
    if (this.other && this.phone.token) await this.askOnOther()
  }

  /** The phone asks WeChat for the data once more. */
  async renewed() {
    const { data, messages } = await this.phone.profile()
    await this.diagram.play(messages)
    await this.decrypt(data)
  }

  /** The second phone sends a request, and shows what it is told. */
  async askOnOther() {
    const { problem, messages } = await this.other.call('GET', 'session')
    await this.diagram.play(messages)
    Screen.other(problem ? toldOf(problem, this.other.token) : 'phone.known', problem !== null)
    if (problem) this.diagram.lesson(problem.code)
  }

  async settle() {
    if (this.phone.token) await this.play('whoami')
    else Screen.nobody()
  }

  // --- Preparation

  async beKnown() {
    if (this.phone.token) return
    const { code } = await this.phone.code()
    const login = await this.phone.exchange(code)
    if (login.problem) throw new Halted(login)
    this.diagram.aside('first.login', { status: login.exchange.status })
    await Vault.look()
  }

  async beNobody() {
    if (!this.phone.token) return
    const { exchange, problem } = await this.phone.logOut()
    this.phone.token = null
    if (!problem) this.diagram.aside('first.logout', { status: exchange.status })
    await Vault.look()
  }

  async secondPhone() {
    const phone = new Phone({ second: true })
    const { code, messages } = await phone.code()
    const login = await phone.exchange(code, { device: 'second phone' })
    await this.diagram.play(messages)
    if (login.problem) throw new Halted(login)
    await this.diagram.play(login.messages)
    return phone
  }
}

/** The messages of several phones in order of time. */
function inOrder(doings) {
  return doings.flatMap(({ messages }) => messages).sort((one, other) => one.at - other.at)
}
