// Log in a website by scanning a code (RFC 8628): the website on a laptop, its screen, and the scenes. All requests are real.

import { counted } from './known.js'
import { ofExchange, problemOf, route, scanned } from './messages.js'
import { Phone, Screen } from './phone.js'
import { Halted, Scenes } from './scenes.js'
import { has, say } from './text.js'
import { Vault } from './vault.js'
import { ask, send } from './wire.js'

const CLIENT = 'shop.example'
/** The letters of a user_code. */
const LETTERS = 'BCDFGHJKLMNPQRSTVWXZ'
const GRANT_TYPE = 'urn:ietf:params:oauth:grant-type:device_code'
/** How often a user may guess in five minutes. */
const GUESSES = 10
/** The answers after which a website polls again. */
const WAITING = ['authorization_pending', 'slow_down']

/** The website. It is a public client: it has no secret. */
class Website {
  /** Ask for a device_code and a user_code. */
  async ask() {
    const done = await this.send('POST', 'device_authorization', { form: { client_id: CLIENT } })
    Object.assign(this, done.exchange.data, { token: null, polledAt: 0 })
    return done
  }

  image() {
    return this.send('GET', `device/${this.user_code}.png`)
  }

  async poll() {
    const done = await this.send('POST', 'token', { form: { grant_type: GRANT_TYPE, device_code: this.device_code, client_id: CLIENT } })
    this.polledAt = done.exchange.at
    if (done.problem?.code === 'slow_down') this.interval += 5
    if (!done.problem) this.token = done.exchange.data.access_token
    return done
  }

  /** Milliseconds until the next poll is not too fast. */
  get wait() {
    return Math.max(this.polledAt + this.interval * 1000 - performance.timeOrigin - performance.now(), 0)
  }

  whoami() {
    return this.send('GET', 'session', { token: this.token })
  }

  async send(...request) {
    const exchange = await send(...request)
    counted(route(exchange), exchange.notes)
    return { exchange, problem: problemOf(exchange), messages: ofExchange(exchange, { by: 'laptop' }) }
  }
}

const at = (id) => document.getElementById(id)

/** The screen of the laptop. */
const Laptop = {
  idle() {
    this.draw('laptop.idle', 'laptop.idle.told', 'laptop.login')
  },

  async code(userCode, image) {
    const bitmap = await createImageBitmap(image)
    const canvas = at('code-image')
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height })
    canvas.getContext('2d').drawImage(bitmap, 0, 0)
    at('user-code').textContent = userCode
    this.draw('laptop.code', 'laptop.code.told', null, true)
  },

  known(openid) {
    this.draw('laptop.known', 'laptop.known.told', 'laptop.again', false, { openid })
  },

  failed(code) {
    this.draw('laptop.failed', has(`laptop.${code}`) ? `laptop.${code}` : 'told.other', 'laptop.again', false, { code })
    at('laptop').classList.add('out')
  },

  draw(who, told, button, code = false, values = {}) {
    say(at('laptop-who'), who, values)
    say(at('laptop-told'), told, values)
    if (button) say(at('ask'), button)
    at('ask').hidden = button === null
    for (const id of ['code-image', 'user-code']) at(id).hidden = !code
    at('laptop').classList.remove('out')
    at('laptop').classList.toggle('known', who === 'laptop.known')
  },
}

export class ScanScenes extends Scenes {
  site = new Website()

  /** Show the initial state of the login of a website. */
  arrive() {
    this.diagram.stage('scan')
    this.diagram.entitle('website')
    this.dismissOther()
    Screen.scanner(this.phone.token)
    Laptop.idle()
    return Vault.look()
  }

  // --- The login, step by step

  /** The website shows a code, and polls. */
  async offer(polls = 1) {
    await this.beKnown()
    Screen.scanner(this.phone.token)
    Laptop.idle()
    await this.siteAsks(await this.site.ask())
    const { exchange } = await this.siteAsks(await this.site.image())
    await Laptop.code(this.site.user_code, exchange.image)
    const polled = []
    while (polled.length < polls) polled.push(await this.site.poll())
    for (const done of polled) await this.siteAsks(done)
    Screen.scanner(this.phone.token, true)
    this.diagram.lesson('offer')
  }

  /** The phone scans the code, and asks its user. */
  async scan(phone = this.phone) {
    await this.diagram.play([scanned(this.site.user_code, phone.second)])
    const done = await phone.call('GET', this.path)
    await this.diagram.play(done.messages)
    if (done.problem) await this.end({ ...done, messages: [] })
    else if (phone === this.phone) {
      Screen.confirm(done.exchange.data, this.site.user_code)
      this.diagram.lesson('confirm')
    }
  }

  /** Send the answer of the phone's user. Return whether the code is answered or expired. */
  async decide(approve, phone = this.phone) {
    const done = await phone.call('POST', this.path, { data: { approve } })
    await this.diagram.play(done.messages)
    if (phone.second) Screen.other(done.problem ? 'told.not_found' : 'phone.approved', done.problem !== null)
    else if (done.problem) await this.end({ ...done, messages: [] })
    else Screen.scanned(approve ? 'phone.approved' : 'phone.refused')
    return !done.problem || done.problem.code === 'not_found'
  }

  /** The website polls when its interval is over, and learns the answer. */
  async learn() {
    if (this.site.wait > 0) {
      this.diagram.aside('aside.interval', { n: Math.ceil(this.site.wait / 1000) })
      await new Promise((done) => setTimeout(done, this.site.wait))
    }
    await this.siteAsks(await this.site.poll())
    const { exchange } = await this.siteAsks(await this.site.whoami())
    Laptop.known(exchange.data.openid)
    this.diagram.lesson('approved')
  }

  async answer(approve) {
    if (await this.decide(approve)) await this.learn()
  }

  // --- Failures

  async denied() {
    await this.offer()
    await this.scan()
    await this.diagram.pause(3)
    await this.answer(false)
  }

  async late() {
    await this.offer()
    const { status } = await ask('POST', `sandbox/expire/${this.site.user_code}`)
    this.diagram.aside('aside.late', { status })
    await this.scan()
    await this.learn()
  }

  async fast() {
    await this.offer(2)
    this.diagram.lesson('slow_down')
  }

  async both() {
    const other = await this.stranger('bob')
    await this.offer()
    await this.scan()
    await this.scan(other)
    await this.decide(true)
    await this.decide(true, other)
    await this.learn()
    this.diagram.lesson('both')
  }

  async guessed() {
    const other = await this.stranger(`guesser ${Math.random()}`)
    await this.offer()
    const guess = () => other.call('GET', `device/${Array.from({ length: 8 }, () => LETTERS[Math.floor(Math.random() * 20)]).join('')}`)
    await this.diagram.play((await guess()).messages)
    for (let n = 1; n < GUESSES; n++) await guess()
    this.diagram.aside('aside.guesses', { n: GUESSES - 1 })
    const { problem, messages } = await guess()
    await this.diagram.play(messages)
    Screen.other(problem.code === 'rate_limited' ? 'told.guesses' : 'told.other', true)
    this.diagram.lesson('guessed')
  }

  // --- Parts

  get path() {
    return `device/${this.site.user_code}`
  }

  /** Draw a request of the website. A failure ends the scene. */
  async siteAsks(done) {
    await this.diagram.play(done.messages)
    if (done.problem && !WAITING.includes(done.problem.code)) throw new Halted({ ...done, bySite: true })
    return done
  }

  async end(done, lesson) {
    if (done.bySite) {
      Laptop.failed(done.problem.code)
      return this.diagram.lesson(done.problem.code)
    }
    await super.end(done, lesson)
    // A phone that had to log in again can scan.
    if (!done.problem && document.body.dataset.chapter === 'scan') Screen.scanner(this.phone.token, !at('user-code').hidden)
  }

  async settle() {
    Screen.scanner(this.phone.token)
  }

  /** The phone of another user, logged in. */
  async stranger(user) {
    const phone = new Phone({ second: true, user })
    const { code } = await phone.code()
    const login = await phone.exchange(code)
    if (login.problem) throw new Halted(login)
    this.diagram.aside('first.other', { status: login.exchange.status })
    Screen.other('phone.known')
    return phone
  }
}
