// A phone: WeChat's `wx` over real HTTP, a clock that stands still until it is moved, and the client between the two.

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const vm = require('node:vm')
const { ask, ROOT } = require('./service.js')

const EXAMPLE = path.join(ROOT, 'examples', 'miniprogram')

class Clock {
  constructor() {
    this.now = 1.8e12
    this.timers = []
    this.waiting = []
    this.setTimeout = (work, ms) => this.set(work, ms)
    this.clearTimeout = timer => { this.timers = this.timers.filter(it => it !== timer) }
    this.Date = { now: () => this.now }
  }

  set(work, ms) {
    const timer = { work, ms, at: this.now + ms }
    this.timers.push(timer)
    const meant = ({ atLeast }) => ms >= atLeast && ms < atLeast * 2
    this.waiting.filter(meant).forEach(it => it.resolve(timer))
    this.waiting = this.waiting.filter(it => !meant(it))
    return timer
  }

  // The next timer that is set for so many ms, or up to twice as many.
  next(atLeast) {
    return new Promise(resolve => this.waiting.push({ atLeast, resolve }))
  }

  advance(ms) {
    this.now += ms
    const due = this.timers.filter(timer => timer.at <= this.now).sort((one, other) => one.at - other.at)
    this.timers = this.timers.filter(timer => timer.at > this.now)
    for (const timer of due) timer.work()
  }
}

// The sandbox's stand-in for wx.login says what WeChat would; `outcomes` scripts the next ones.
class Wx {
  constructor(service, user = 'alice') {
    this.service = service
    this.user = user
    this.storage = new Map()
    this.full = false
    this.logins = 0
    this.outcomes = []
    this.files = fs.mkdtempSync(path.join(os.tmpdir(), 'wxauth-phone-'))
    this.filesWritten = 0
    // As a mini program calls them: without `this`.
    for (const name of ['login', 'request', 'uploadFile', 'downloadFile']) this[name] = this[name].bind(this)
  }

  login({ success, fail }) {
    this.logins += 1
    const outcome = this.outcomes.shift()
    if (outcome === 'silent') return
    if (outcome === 'fail') return void setImmediate(fail, { errMsg: 'login:fail interrupted' })
    const body = JSON.stringify({ user: this.user, ...(outcome ? { outcome } : {}) })
    const headers = { 'Content-Type': 'application/json' }
    ask(`${this.service.url}/sandbox/wx.login`, { method: 'POST', headers, body })
      .then(answer => success({ code: JSON.parse(answer.body).code, errMsg: 'login:ok' }))
      .catch(error => fail({ errMsg: `login:fail ${error.message}` }))
  }

  request({ url, method = 'GET', data, header, dataType = 'json', responseType = 'text', success, fail }) {
    const body = data === undefined || method === 'GET' ? undefined : JSON.stringify(data)
    const sent = { 'content-type': 'application/json', ...(body ? { 'content-length': Buffer.byteLength(body) } : {}) }
    this.over('request', { url, method, headers: { ...sent, ...header }, body, success, fail }, ({ body }) => {
      if (responseType === 'arraybuffer') return { data: new Uint8Array(body).buffer }
      return { data: dataType === 'json' ? parsed(body.toString()) : body.toString() }
    })
  }

  uploadFile({ url, filePath, name, header, success, fail }) {
    const head = `--b\r\nContent-Disposition: form-data; name="${name}"; filename="f"\r\n\r\n`
    const body = Buffer.concat([Buffer.from(head), fs.readFileSync(filePath), Buffer.from('\r\n--b--\r\n')])
    const headers = { ...header, 'content-type': 'multipart/form-data; boundary=b', 'content-length': body.length }
    const options = { url, method: 'POST', headers, body, success, fail }
    this.over('uploadFile', options, ({ body }) => ({ data: body.toString() }))
  }

  // Whatever comes is written to a file, a problem too.
  downloadFile({ url, header, success, fail }) {
    this.over('downloadFile', { url, method: 'GET', headers: header, success, fail }, ({ body }) => {
      const tempFilePath = path.join(this.files, String(this.filesWritten++))
      fs.writeFileSync(tempFilePath, body)
      return { tempFilePath }
    })
  }

  over(name, { url, success, fail, ...options }, shape) {
    ask(url, options).then(
      answer => {
        // Of an upload or a download WeChat shows none.
        const shown = name === 'request' ? { header: named(answer.rawHeaders) } : {}
        success({ statusCode: answer.status, ...shown, errMsg: `${name}:ok`, ...shape(answer) })
      },
      error => fail({ errMsg: `${name}:fail ${error.message}` }),
    )
  }

  getStorageSync(key) {
    return this.storage.has(key) ? structuredClone(this.storage.get(key)) : ''
  }

  setStorageSync(key, data) {
    if (this.full) throw new Error('setStorageSync:fail exceed storage max size')
    this.storage.set(key, structuredClone(data))
  }

  removeStorageSync(key) {
    this.storage.delete(key)
  }

  getFileSystemManager() {
    return { readFileSync: fs.readFileSync }
  }

  drop() {
    fs.rmSync(this.files, { recursive: true })
  }
}

function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

// Names as they were sent: WeChat passes them on in any case.
function named(rawHeaders) {
  const pairs = rawHeaders.map((name, at) => [name, rawHeaders[at + 1]]).filter((_, at) => at % 2 === 0)
  return Object.fromEntries(pairs)
}

// A file of the example as the base library would run it: what it uses beside the language is what is given here.
function run(file, given) {
  return execute(fs.readFileSync(path.join(EXAMPLE, file), 'utf8'), given)
}

function execute(source, given) {
  const module = { exports: {} }
  vm.runInNewContext(source.replace(/(?<=')https?:\/\/[\w.:]+(?=')/, given.baseURL), { module, ...given })
  return module.exports
}

function load({ setTimeout, clearTimeout, Date }, more = {}) {
  return run('wxauth.js', { setTimeout, clearTimeout, Date, ...more })
}

// The whole mini program: its app and one of its pages, which is not loaded yet.
function open(clock, wx, baseURL, name = 'index', more = {}) {
  let app, page
  const given = { wx, console: { warn() {} } }
  run('app.js', { ...given, baseURL, require: () => load(clock, given), App: it => { app = it } })
  run(`pages/${name}/index.js`, { ...given, ...more, getApp: () => app, Page: it => { page = it } })
  return live(page)
}

// The page of the mini program that a document shows, in its first block of JavaScript.
function shown(document, clock, wx, baseURL) {
  const [, block] = /```js\n(.*?)```/s.exec(fs.readFileSync(path.join(ROOT, document), 'utf8'))
  let page
  execute(block, { wx, baseURL, require: () => load(clock).create({ baseURL, wx }), Page: it => { page = it } })
  return live(page)
}

function live(page) {
  page.data = page.data || {}
  page.setData = news => Object.assign(page.data, news)
  return page
}

module.exports = { Clock, EXAMPLE, load, open, shown, Wx }
