// The real service in its sandbox, and a relay in front of it that counts, holds back and makes up answers.

const { spawn } = require('node:child_process')
const { once, EventEmitter } = require('node:events')
const http = require('node:http')
const path = require('node:path')

const ROOT = path.join(__dirname, '..', '..')
const PYTHON = process.env.PYTHON || path.join(ROOT, '.venv', 'bin', 'python')
const HOST = '127.0.0.1'
const ROUNDS = 600 // of 50 ms, for the service to come up
const LONGEST = 240000 // ms; a run that hangs ends, and its service with it

async function freePort() {
  const probe = http.createServer().listen(0, HOST)
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  await once(probe, 'close')
  return port
}

// One request over real HTTP: { status, headers, rawHeaders, body }, body a Buffer.
function ask(url, { method = 'GET', headers = {}, body, timeout } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent: false, timeout }, response => {
      const parts = []
      response.on('data', part => parts.push(part)).on('error', reject).on('end', () => {
        const { statusCode: status, headers, rawHeaders } = response
        resolve({ status, headers, rawHeaders, body: Buffer.concat(parts) })
      })
    })
    request.on('error', reject).on('timeout', () => request.destroy(new Error('timeout'))).end(body)
  })
}

// `python app.py` with PORT set. It leads a process group of its own, so that nothing of it is left over.
class Sandbox {
  constructor(environ = {}) {
    this.environ = environ
  }

  async start() {
    this.port = this.port || await freePort()
    this.url = `http://${HOST}:${this.port}`
    const env = { PATH: process.env.PATH, PORT: String(this.port), ...this.environ }
    this.child = spawn(PYTHON, ['app.py'], { cwd: ROOT, env, detached: true, stdio: 'ignore' })
    this.over = once(this.child, 'exit')
    this.last = signal => { this.kill(); if (signal === 'SIGTERM') process.exit(1) }
    setTimeout(() => process.exit(1), LONGEST).unref()
    process.once('exit', this.last).once('SIGTERM', this.last)
    for (let round = 0; round < ROUNDS; round++) {
      if (await ask(`${this.url}/healthz`, { timeout: 1000 }).catch(() => null)) return this
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    throw new Error('the service does not come up')
  }

  kill() {
    if (this.child.exitCode === null && this.child.signalCode === null) process.kill(-this.child.pid, 'SIGKILL')
  }

  async stop() {
    this.kill()
    await this.over
    process.removeListener('exit', this.last).removeListener('SIGTERM', this.last)
  }
}

// What stands in front. /upload and /download are a backend of the team's: it asks the service whose token it is.
class Front extends EventEmitter {
  constructor(sandbox) {
    super()
    this.sandbox = sandbox
    this.forget()
    this.server = http.createServer((request, response) => {
      this.serve(request, response).catch(() => response.destroy())
    })
  }

  async start() {
    this.server.listen(0, HOST)
    await once(this.server, 'listening')
    this.url = `http://${HOST}:${this.server.address().port}`
    return this
  }

  stop() {
    this.server.closeAllConnections()
    this.server.close()
  }

  forget() {
    this.seen = []
    this.scripts = {}
    this.held = {}
  }

  // The next request of this kind, as 'GET /session', is answered so. Without a body it is a problem of this code.
  say(what, status, code, action, headers = {}) {
    const body = JSON.stringify({ status, code, action, detail: `made up: ${code}` })
    return this.answer(what, status, body, { 'Content-Type': 'application/problem+json', ...headers })
  }

  answer(what, status, body, headers = {}) {
    const script = { status, body, rawHeaders: Object.entries(headers).flat() }
    this.scripts[what] = [...(this.scripts[what] || []), script]
    return this
  }

  // Holds the answers of this kind back; what it returns lets them go.
  hold(what) {
    let release
    this.held[what] = new Promise(resolve => { release = resolve })
    return () => { delete this.held[what]; release() }
  }

  all(what) {
    return this.seen.filter(it => it.what === what)
  }

  count(what) {
    return this.all(what).length
  }

  // Settled once so many requests of this kind are here.
  async arrived(what, number) {
    while (this.count(what) < number) await once(this, 'request')
  }

  async serve(request, response) {
    const parts = []
    for await (const part of request) parts.push(part)
    const body = Buffer.concat(parts)
    const what = `${request.method} ${request.url}`
    this.seen.push({ what, authorization: request.headers.authorization, body })
    this.emit('request')
    const script = (this.scripts[what] || []).shift()
    const answer = script || await this.behind(request, body)
    await this.held[what]
    response.writeHead(answer.status, answer.rawHeaders)
    response.end(answer.body)
  }

  async behind({ method, url, headers }, body) {
    const teams = ['/upload', '/download'].includes(url)
    if (!teams) return ask(this.sandbox.url + url, { method, headers, body })
    const { authorization = '' } = headers
    const session = await ask(`${this.sandbox.url}/session`, { headers: { authorization } })
    if (session.status !== 200) return session
    return { status: 200, rawHeaders: [], body: url === '/upload' ? `${body.length}` : 'the file' }
  }
}

// A small backend over real HTTP. `handle` gets the Authorization header and the path, and returns [status, body].
// A body that is no string is sent as JSON.
async function startBackend(handle) {
  const seen = []
  const server = http.createServer(async (request, response) => {
    const { url, headers: { authorization = '' } } = request
    seen.push(authorization)
    const [status, body] = await handle(authorization, url)
    response.writeHead(status, { 'Content-Type': typeof body === 'string' ? 'text/html' : 'application/json' })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  server.listen(0, HOST)
  await once(server, 'listening')
  return { url: `http://${HOST}:${server.address().port}`, seen, stop: () => server.close() }
}

module.exports = { ask, Front, ROOT, Sandbox, startBackend }
