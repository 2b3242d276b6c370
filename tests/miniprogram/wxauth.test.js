// examples/miniprogram/wxauth.js against the real service. Each name says the rule; no rule is timed by a real clock.

const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { after, before, beforeEach, test: nodeTest } = require('node:test')
const { Clock, EXAMPLE, load, open, shown, Wx } = require('./phone.js')
const { ask, Front, Sandbox, startBackend } = require('./service.js')

const GAP = 3000
const TOO_LONG = 60000 // ms: a promise that is never settled is a failure, too
const SESSION = { url: '/session' }
const FILE = { url: '/upload', filePath: __filename, name: 'file' }

const sandbox = new Sandbox({ WXAUTH_PUBLIC_URL: 'https://login.example.com', WXAUTH_PUBLIC_CLIENTS: 'console' })
const front = new Front(sandbox)

before(async () => { await Promise.all([sandbox.start(), front.start()]) })
after(async () => { front.stop(); await sandbox.stop() })
beforeEach(() => front.forget())

const test = (rule, work) => nodeTest(rule, { timeout: TOO_LONG }, work)

// A phone with nothing on it, and a client in it.
function phone(t, { service = front, baseURL = service.url, ...settings } = {}) {
  const wx = new Wx(service)
  const clock = new Clock()
  t.after(() => wx.drop())
  const start = more => load(clock).create({ baseURL, wx, ...settings, ...more })
  return { wx, clock, start, auth: start() }
}

// The same after a login, when wx.login may be called again.
async function phoneLoggedIn(t, settings) {
  const it = phone(t, settings)
  await it.auth.login()
  it.clock.advance(GAP)
  front.forget()
  return it
}

const stored = wx => [...wx.storage.values()][0]
const statusOf = async token => {
  const headers = { Authorization: `Bearer ${token}` }
  return (await ask(`${sandbox.url}/session`, { headers })).status
}
// What a logout on another phone, or an operator, does.
const endSession = wx => {
  const headers = { Authorization: `Bearer ${stored(wx).token}` }
  return ask(`${sandbox.url}/session`, { method: 'DELETE', headers })
}
const ten = work => Promise.all(Array.from({ length: 10 }, work))
const statuses = answers => answers.map(answer => answer.statusCode)
const TEN_TIMES_200 = Array(10).fill(200)
// Everything that can go on without the network or the clock has gone on.
const idle = () => new Promise(resolve => setImmediate(resolve))

// --- Logging in

test('the first request logs in by itself', async t => {
  const { auth, wx } = phone(t)
  const answer = await auth.request(SESSION)
  assert.equal(answer.statusCode, 200)
  assert.match(answer.data.openid, /^oSANDBOX/)
  assert.equal(wx.logins, 1)
})

test('ten requests at once share one login', async t => {
  const { auth, wx } = phone(t)
  assert.deepEqual(statuses(await ten(() => auth.request(SESSION))), TEN_TIMES_200)
  assert.equal(wx.logins, 1)
})

test('a login is not repeated while there is a token, but with force', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await auth.login()
  assert.equal(wx.logins, 1)
  await Promise.all([auth.login({ force: true }), auth.login({ force: true }), auth.login()])
  assert.equal(wx.logins, 2)
})

test('a forced login ends the session that it replaces', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const { token } = stored(wx)
  await auth.login({ force: true })
  assert.deepEqual([await statusOf(token), await statusOf(stored(wx).token)], [401, 200])
})

test('a request that comes during a login waits for it', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const old = stored(wx).token
  const release = front.hold('POST /login')
  const login = auth.login({ force: true })
  await front.arrived('POST /login', 1)
  const request = auth.request(SESSION)
  await idle()
  release()
  await Promise.all([login, request])
  assert.notEqual(stored(wx).token, old)
  assert.deepEqual(front.all('GET /session').map(it => it.authorization), [`Bearer ${stored(wx).token}`])
})

test('wx.login is called at most once in three seconds', async t => {
  const { auth, wx, clock } = phone(t)
  await auth.login()
  const second = auth.login({ force: true })
  await idle()
  clock.advance(GAP - 1)
  await idle()
  assert.equal(wx.logins, 1)
  clock.advance(1)
  await second
  assert.equal(wx.logins, 2)
})

test('a clock that is set back keeps no login waiting', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  clock.now -= 86400e3
  await auth.login({ force: true })
  assert.equal(wx.logins, 2)
})

test('a login says which mini program and which device it is', async t => {
  const { auth } = phone(t, { appid: 'wxsandbox00000000', device: 'a phone' })
  const { data } = await auth.request({ url: '/sessions' })
  assert.equal(data.sessions.find(it => it.current).device, 'a phone')
  assert.equal(JSON.parse(front.all('POST /login')[0].body).appid, 'wxsandbox00000000')
})

// --- A login that fails

test('a login that fails ends every request that waits for it, and is not hammered', async t => {
  const { auth, wx } = phone(t)
  wx.outcomes = ['40226']
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => auth.request(SESSION)))
  assert.deepEqual(results.map(it => it.reason && it.reason.code), Array(10).fill('user_blocked'))
  assert.equal(wx.logins, 1)
  assert.equal(front.count('GET /session'), 0)
})

test('after a login that failed the next request tries again', async t => {
  const { auth, wx, clock } = phone(t)
  wx.outcomes = ['40226']
  await assert.rejects(auth.login(), { code: 'user_blocked' })
  clock.advance(GAP)
  assert.equal((await auth.request(SESSION)).statusCode, 200)
})

test('a code that WeChat refuses is replaced once', async t => {
  const { auth, wx, clock } = phone(t)
  wx.outcomes = ['40029', '40029']
  const login = auth.login()
  await front.arrived('POST /login', 1)
  clock.advance(GAP)
  await assert.rejects(login, { code: 'code_invalid' })
  assert.equal(wx.logins, 2)
})

test('a busy WeChat is asked again after Retry-After, with a new code', async t => {
  const { auth, wx, clock } = phone(t)
  wx.outcomes = ['-1']
  const wait = clock.next(1000)
  const login = auth.login()
  const { ms } = await wait
  assert.equal(wx.logins, 1)
  clock.advance(Math.max(ms, GAP))
  await login
  const codes = front.all('POST /login').map(it => JSON.parse(it.body).code)
  assert.equal(new Set(codes).size, 2)
})

test('what wx.login says when it fails reaches the caller', async t => {
  const { auth, wx } = phone(t)
  wx.outcomes = ['fail']
  await assert.rejects(auth.request(SESSION), { code: 'wx_failed', message: 'login:fail interrupted' })
})

test('a wx.login that never answers is over after a while', async t => {
  const { auth, wx, clock } = phone(t)
  wx.outcomes = ['silent']
  const wait = clock.next(10000)
  const over = assert.rejects(auth.request(SESSION), { code: 'wx_failed' })
  clock.advance((await wait).ms)
  await over
})

const NO_LOGINS = {
  'a page': '<html>', nothing: '', null: 'null', 'no token': '{"expires_in": 9}', 'a number': '{"token": 7}',
}

for (const [what, body] of Object.entries(NO_LOGINS)) {
  test(`a login answered with ${what} is no login`, async t => {
    const { auth, wx } = phone(t)
    front.answer('POST /login', 200, body)
    await assert.rejects(auth.login(), { code: 'not_understood' })
    assert.equal(wx.storage.size, 0)
  })
}

// --- A token that ends

test('a session that ended between two requests costs one login and one repeat', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  assert.equal((await auth.request(SESSION)).statusCode, 200)
  await endSession(wx)
  assert.equal((await auth.request(SESSION)).statusCode, 200)
  assert.deepEqual([wx.logins, front.count('GET /session')], [2, 3])
})

test('a session that ends while a request is on its way is replaced', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const release = front.hold('POST /login')
  await endSession(wx)
  const request = auth.request(SESSION)
  await front.arrived('POST /login', 1)
  const meanwhile = auth.request({ url: '/sessions' })
  await idle()
  release()
  assert.deepEqual(statuses(await Promise.all([request, meanwhile])), [200, 200])
  assert.deepEqual([wx.logins, front.count('GET /sessions')], [2, 1])
})

test('ten parallel 401s are one login', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await endSession(wx)
  const release = front.hold('GET /session')
  const requests = ten(() => auth.request(SESSION))
  await front.arrived('GET /session', 10)
  release()
  assert.deepEqual(statuses(await requests), TEN_TIMES_200)
  assert.deepEqual([wx.logins, front.count('GET /session')], [2, 20])
})

test('a 401 that comes late is repeated with the newer token, without a login', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await endSession(wx)
  const release = front.hold('GET /session')
  const late = auth.request(SESSION)
  await front.arrived('GET /session', 1)
  await auth.request({ url: '/sessions' })
  assert.equal(wx.logins, 2)
  release()
  assert.equal((await late).statusCode, 200)
  assert.equal(wx.logins, 2)
})

test('a request is repeated once after a login, never twice', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  for (let times = 0; times < 5; times++) front.say('GET /orders', 401, 'token_invalid', 'login')
  const request = auth.request({ url: '/orders' })
  await front.arrived('GET /orders', 2)
  clock.advance(GAP)
  const answer = await request
  assert.deepEqual([answer.statusCode, answer.data.code], [401, 'token_invalid'])
  assert.deepEqual([wx.logins, front.count('GET /orders')], [2, 2])
})

test('a login that fails after a 401 settles all ten, and the token is forgotten', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await endSession(wx)
  wx.outcomes = ['40226']
  const release = front.hold('GET /session')
  const requests = Promise.allSettled(Array.from({ length: 10 }, () => auth.request(SESSION)))
  await front.arrived('GET /session', 10)
  release()
  const ends = (await requests).map(({ reason, value }) => (reason ? reason.code : value.statusCode))
  assert.deepEqual(ends.filter(end => end !== 'user_blocked' && end !== 'logged_out'), [])
  assert.deepEqual([wx.logins, wx.storage.size], [2, 0])
})

test('an operation that asks for a fresh login keeps the live token until there is a new one', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const { token } = stored(wx)
  front.say('POST /pay', 401, 'login_too_old', 'login')
  front.answer('POST /pay', 200, '{}')
  assert.equal((await auth.request({ url: '/pay', method: 'POST' })).statusCode, 200)
  assert.deepEqual([await statusOf(token), front.all('POST /login')[0].authorization], [401, `Bearer ${token}`])
})

test('a forced login that fails takes nothing from a request with a live token', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  wx.outcomes = ['40226']
  const release = front.hold('POST /login')
  const login = assert.rejects(auth.login({ force: true }), { code: 'user_blocked' })
  await front.arrived('POST /login', 1)
  const request = auth.request(SESSION)
  release()
  await login
  assert.equal((await request).statusCode, 200)
})

test('a token is used until it is refused: its age alone is no reason to log in', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  clock.advance(365 * 86400e3)
  await auth.login()
  assert.equal((await auth.request(SESSION)).statusCode, 200)
  assert.deepEqual([wx.logins, front.seen.length], [1, 1])
})

test('a problem is one by its status: a success may speak of logins', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  front.answer('GET /events', 200, '{"code": "token_invalid", "action": "login"}')
  assert.equal((await auth.request({ url: '/events' })).data.action, 'login')
  assert.deepEqual([wx.logins, front.count('GET /events')], [1, 1])
})

const NO_PROBLEMS = {
  'a page': '<html>', nothing: '', null: 'null', 'a list': '[1]', 'another object': '{"action": 7}',
}

for (const [what, body] of Object.entries(NO_PROBLEMS)) {
  test(`a 401 with ${what} renews the login once`, async t => {
    const { auth, wx } = await phoneLoggedIn(t)
    for (let times = 0; times < 3; times++) front.answer('GET /orders', 401, body)
    assert.equal((await auth.request({ url: '/orders' })).statusCode, 401)
    assert.deepEqual([wx.logins, front.count('GET /orders')], [2, 2])
  })

  test(`a 403 with ${what} is handed on`, async t => {
    const { auth, wx } = await phoneLoggedIn(t)
    front.answer('GET /orders', 403, body)
    assert.equal((await auth.request({ url: '/orders' })).statusCode, 403)
    assert.deepEqual([wx.logins, front.count('GET /orders')], [1, 1])
  })
}

test('a problem is understood where the caller asked for bytes or for text', async t => {
  for (const form of [{ responseType: 'arraybuffer' }, { dataType: 'text' }]) {
    const { auth, wx } = await phoneLoggedIn(t)
    await endSession(wx)
    assert.equal((await auth.request({ ...SESSION, ...form })).statusCode, 200)
  }
})

// --- A session that was ended by another login, another device or the operator

const ORDERS = { url: '/orders' }

// A phone that was told that its session was replaced. `told` are the problems that onEnded got.
async function phoneEnded(t, settings) {
  const told = []
  const it = await phoneLoggedIn(t, { onEnded: problem => told.push(problem), ...settings })
  front.say('GET /orders', 401, 'session_replaced', 'ask')
  await assert.rejects(it.auth.request(ORDERS), { code: 'session_replaced', message: 'made up: session_replaced' })
  front.forget()
  return { ...it, told }
}

test('a replaced session stops silent logins: every call is rejected, and onEnded is called once', async t => {
  const { auth, wx, told } = await phoneEnded(t)
  const calls = [auth.request(ORDERS), auth.uploadFile(FILE), auth.downloadFile(ORDERS), auth.phone('c'), auth.token()]
  const ends = await Promise.allSettled(calls)
  assert.deepEqual(ends.map(it => it.reason && it.reason.code), Array(5).fill('session_replaced'))
  assert.deepEqual(told.map(({ code, action }) => [code, action]), [['session_replaced', 'ask']])
  assert.deepEqual([wx.logins, front.seen], [1, []])
})

test('ten parallel answers that the session was revoked call onEnded once and log in never', async t => {
  let calls = 0
  const { auth, wx } = await phoneLoggedIn(t, { onEnded: () => { calls += 1 } })
  for (let times = 0; times < 10; times++) front.say('GET /orders', 401, 'session_revoked', 'ask')
  const release = front.hold('GET /orders')
  const requests = Promise.allSettled(Array.from({ length: 10 }, () => auth.request(ORDERS)))
  await front.arrived('GET /orders', 10)
  release()
  assert.deepEqual((await requests).map(it => it.reason && it.reason.code), Array(10).fill('session_revoked'))
  assert.deepEqual([calls, wx.logins, front.count('GET /orders')], [1, 1, 10])
})

test('a replaced session is known after a restart, and onEnded is not called again', async t => {
  const { start, wx, told } = await phoneEnded(t)
  await assert.rejects(start().request(ORDERS), { code: 'session_replaced' })
  assert.deepEqual([wx.logins, told.length, front.seen], [1, 1, []])
})

test('a phone whose session was replaced while it slept is told so, and does not log in', async t => {
  const told = []
  const { start, wx, clock } = await phoneLoggedIn(t)
  clock.advance(365 * 86400e3)
  front.say('GET /session', 401, 'session_replaced', 'ask')
  const auth = start({ onEnded: ({ code }) => told.push(code) })
  await assert.rejects(auth.request(SESSION), { code: 'session_replaced' })
  assert.deepEqual([wx.logins, told, front.count('POST /login')], [1, ['session_replaced'], 0])
})

test('an error in onEnded does not replace the error of the request', async t => {
  const handlers = process.rawListeners('unhandledRejection')
  process.removeAllListeners('unhandledRejection') // those of node:test would fail this test
  t.after(() => handlers.forEach(it => process.on('unhandledRejection', it)))
  const unhandled = new Promise(resolve => process.once('unhandledRejection', resolve))
  const { auth } = await phoneLoggedIn(t, { onEnded: () => { throw new Error('a fault of the mini program') } })
  front.say('GET /orders', 401, 'session_replaced', 'ask')
  await assert.rejects(auth.request(ORDERS), { code: 'session_replaced' })
  assert.equal((await unhandled).message, 'a fault of the mini program')
})

test('login() without force ends the silence', async t => {
  const { auth, wx } = await phoneEnded(t)
  await auth.login()
  assert.equal((await auth.request(SESSION)).statusCode, 200)
  assert.equal(wx.logins, 2)
})

test('requests during that login wait for it', async t => {
  const { auth } = await phoneEnded(t)
  const [, answer] = await Promise.all([auth.login(), auth.request(SESSION)])
  assert.equal(answer.statusCode, 200)
})

test('onEnded may call login()', async t => {
  const it = await phoneLoggedIn(t, { onEnded: () => { it.login = it.auth.login() } })
  front.say('GET /orders', 401, 'session_replaced', 'ask')
  await assert.rejects(it.auth.request(ORDERS), { code: 'session_replaced' })
  await it.login
  assert.equal((await it.auth.request(SESSION)).statusCode, 200)
})

test('after a login() that failed the session is still ended', async t => {
  const { auth, wx } = await phoneEnded(t)
  wx.outcomes = ['40226']
  await assert.rejects(auth.login(), { code: 'user_blocked' })
  await assert.rejects(auth.request(SESSION), { code: 'session_replaced' })
  assert.equal(wx.logins, 2)
})

test('a logout does not log in again either', async t => {
  const { auth } = await phoneEnded(t)
  assert.equal(await auth.logout(), true)
  await assert.rejects(auth.request(SESSION), { code: 'session_replaced' })
})

test('a late answer about a replaced token is repeated with the newer token', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  front.say('GET /session', 401, 'session_replaced', 'ask')
  const release = front.hold('GET /session')
  const late = auth.request(SESSION)
  await front.arrived('GET /session', 1)
  await auth.login({ force: true })
  release()
  assert.equal((await late).statusCode, 200)
  assert.equal(wx.logins, 2)
})

test('an answer about a replaced token waits for the login under way', async t => {
  const told = []
  const { auth, wx } = await phoneLoggedIn(t, { onEnded: problem => told.push(problem) })
  front.say('GET /session', 401, 'session_replaced', 'ask')
  const releases = [front.hold('GET /session'), front.hold('POST /login')]
  const request = auth.request(SESSION)
  await front.arrived('GET /session', 1)
  const login = auth.login({ force: true })
  await front.arrived('POST /login', 1)
  releases[0]()
  await idle()
  releases[1]()
  await login
  assert.equal((await request).statusCode, 200)
  assert.deepEqual([wx.logins, told], [2, []])
})

test('other answers of 4xx are fulfilled', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  front.say('GET /orders', 403, 'user_banned', 'none').say('GET /orders', 401, 'client_unauthorized', 'none')
  const answers = [await auth.request(ORDERS), await auth.request(ORDERS), await auth.request({ url: '/nowhere' })]
  assert.deepEqual(statuses(answers), [403, 401, 404])
  assert.equal(wx.logins, 1)
})

test('a login that is answered with ask is rejected, and not repeated', async t => {
  const { auth, wx } = phone(t)
  front.say('POST /login', 401, 'session_replaced', 'ask')
  await assert.rejects(auth.login(), { code: 'session_replaced' })
  assert.equal(wx.logins, 1)
})

// A service that allows one session: a login replaces the last one. `backend` knows of tokens, but not of reasons.
function oneSession() {
  let logins = 0
  const isLive = authorization => authorization === `Bearer wxa_${logins}`
  const replaced = { code: 'session_replaced', action: 'ask', detail: 'The user logged in elsewhere' }
  const service = (authorization, path) => {
    if (path === '/login') return [200, { token: `wxa_${++logins}`, expires_in: 604800 }]
    if (path === '/sandbox/wx.login') return [200, { code: 'c' }]
    return isLive(authorization) ? [200, {}] : [401, replaced]
  }
  const backend = authorization => (isLive(authorization) ? [200, {}] : [401, { error: 'invalid_token' }])
  return { service, backend, logins: () => logins }
}

for (const asked of ['service', 'backend']) {
  test(`two phones that keep asking the ${asked} settle after one exchange`, async t => {
    const fake = oneSession()
    const service = await startBackend(fake.service)
    const backend = await startBackend(fake.backend)
    t.after(() => { service.stop(); backend.stop() })
    const told = []
    const phones = ['old', 'new'].map(name => {
      const onEnded = ({ code }) => told.push(`${name}: ${code}`)
      return phone(t, { service, origins: [backend.url], onEnded })
    })
    const url = { service: '/session', backend: backend.url }[asked]
    const statusesOf = async ({ auth, clock }) => {
      const answer = auth.request({ url }).then(it => it.statusCode, error => error.code)
      clock.advance(GAP)
      return answer
    }
    const rounds = []
    for (let round = 0; round < 5; round++) {
      for (const it of phones) rounds.push(await statusesOf(it))
    }
    assert.deepEqual(rounds, [200, 200, ...Array(4).fill(['session_replaced', 200]).flat()])
    assert.deepEqual([fake.logins(), told], [2, ['old: session_replaced']])
  })
}

// --- Another backend, that does not answer with our problems

async function backends(t, number, handle) {
  const started = await Promise.all(Array.from({ length: number }, () => startBackend(handle)))
  t.after(() => started.forEach(it => it.stop()))
  return started
}

// A phone, and a backend that asks the real service and answers `refusal` if the token is not live.
async function phoneWithBackend(t, refusal) {
  const isLive = async authorization => (await ask(`${sandbox.url}/session`, { headers: { authorization } })).status === 200
  const [backend] = await backends(t, 1, async authorization => (await isLive(authorization) ? [200, {}] : refusal))
  const it = await phoneLoggedIn(t, { origins: [backend.url] })
  return { ...it, backend, orders: () => it.auth.request({ url: `${backend.url}/orders` }) }
}

for (const [what, body] of Object.entries({
  'a page': '<html>',
  'the error of OAuth': { error: 'invalid_token' },
  'the text of FastAPI': { detail: 'Not authenticated' },
  'a problem inside detail': { detail: { code: 'token_invalid', action: 'login' } },
})) {
  test(`a 401 of another backend with ${what} renews the login once`, async t => {
    const { orders, wx, backend } = await phoneWithBackend(t, [401, body])
    await endSession(wx)
    assert.equal((await orders()).statusCode, 200)
    assert.deepEqual([wx.logins, backend.seen.length, new Set(backend.seen).size], [2, 2, 2])
  })
}

test('a reason inside detail ends the session', async t => {
  const reason = { code: 'session_revoked', action: 'ask', detail: 'ended' }
  const { orders, wx } = await phoneWithBackend(t, [401, { detail: reason }])
  await endSession(wx)
  await assert.rejects(orders(), { code: 'session_revoked', message: 'ended' })
  assert.deepEqual([wx.logins, front.seen], [1, []])
})

for (const members of [{}, { code: null }, { code: '' }, { code: 7 }, { token: 'wxa_x', endsAt: 9e15 }]) {
  test(`a reason with ${JSON.stringify(members)} ends the session as revoked, and is told once`, async t => {
    const told = []
    const { auth, wx } = await phoneLoggedIn(t, { onEnded: problem => told.push(problem) })
    front.answer('GET /orders', 401, JSON.stringify({ action: 'ask', detail: 'ended', ...members }))
    for (let times = 0; times < 2; times++) {
      await assert.rejects(auth.request(ORDERS), { code: 'session_revoked', message: 'ended' })
    }
    assert.deepEqual(told.map(({ code, action }) => [code, action]), [['session_revoked', 'ask']])
    assert.deepEqual([wx.logins, front.seen.length], [1, 1])
    assert.deepEqual(stored(wx), { code: 'session_revoked', detail: 'ended' })
  })
}

test('an object in detail does not hide the action beside it', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const body = { code: 'session_replaced', action: 'ask', detail: { action: 'login', zh: 'ended' } }
  front.answer('GET /orders', 401, JSON.stringify(body))
  await assert.rejects(auth.request(ORDERS), { code: 'session_replaced' })
  assert.deepEqual([wx.logins, front.seen.length], [1, 1])
})

test('a 401 of another backend without a reason: the service is asked for it', async t => {
  const { orders, wx } = await phoneWithBackend(t, [401, {}])
  await endSession(wx)
  front.say('GET /session', 401, 'session_replaced', 'ask')
  await assert.rejects(orders(), { code: 'session_replaced' })
  assert.deepEqual([wx.logins, front.count('GET /session')], [1, 1])
})

for (const [what, say] of Object.entries({
  'that it can\'t tell': () => front.say('GET /session', 503, 'store_unavailable', 'retry'),
  'that there is a limit': () => front.say('GET /session', 429, 'rate_limited', 'retry'),
  'that the user is banned': () => front.say('GET /session', 403, 'user_banned', 'none'),
  'that there is no such page': () => front.say('GET /session', 404, 'not_found', 'none'),
  'with a page of a gateway': () => front.answer('GET /session', 502, '<html>'),
  'with a 401 that names no reason': () => front.answer('GET /session', 401, '<html>'),
})) {
  test(`a 401 without a reason is handed on if the service answers ${what}`, async t => {
    const { orders, wx } = await phoneWithBackend(t, [401, { error: 'invalid_token' }])
    await endSession(wx)
    say()
    const { statusCode, data } = await orders()
    assert.deepEqual([statusCode, data.error, wx.logins], [401, 'invalid_token', 1])
    assert.deepEqual(front.seen.map(it => it.what), ['GET /session'])
  })
}

test('a 401 without a reason is handed on if the service does not answer', async t => {
  const { orders, wx } = await phoneWithBackend(t, [401, { error: 'invalid_token' }])
  await endSession(wx)
  const { request } = wx
  wx.request = options => (options.url.endsWith('/session') ? options.fail({ errMsg: 'request:fail' }) : request(options))
  assert.equal((await orders()).data.error, 'invalid_token')
  assert.equal(wx.logins, 1)
})

test('a logout while the service is asked for the reason is not undone', async t => {
  const { auth, orders, wx } = await phoneWithBackend(t, [401, {}])
  await endSession(wx)
  const release = front.hold('GET /session')
  const request = orders()
  await front.arrived('GET /session', 1)
  await auth.logout()
  release()
  await assert.rejects(request, { code: 'logged_out' })
  assert.deepEqual([wx.logins, wx.storage.size], [1, 0])
})

// --- Uploads and downloads

test('an upload is repeated whole after a login', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await endSession(wx)
  const answer = await auth.uploadFile(FILE)
  const [first, second] = front.all('POST /upload').map(it => it.body)
  assert.equal(answer.data, String(second.length))
  assert.deepEqual(first, second)
  assert.ok(second.includes(fs.readFileSync(__filename)))
})

test('a download whose file is a problem is repeated after a login', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await endSession(wx)
  const { statusCode, tempFilePath } = await auth.downloadFile({ url: '/download' })
  assert.deepEqual([statusCode, fs.readFileSync(tempFilePath, 'utf8')], [200, 'the file'])
  assert.equal(wx.logins, 2)
})

// --- Retry

test('a 503 of the service is repeated after Retry-After, in whatever case it is written', async t => {
  for (const name of ['Retry-After', 'retry-after', 'RETRY-AFTER']) {
    const { auth, clock } = await phoneLoggedIn(t)
    front.say('POST /orders', 503, 'store_unavailable', 'retry', { [name]: '4' })
    front.answer('POST /orders', 200, '{}')
    const wait = clock.next(4000)
    const request = auth.request({ url: '/orders', method: 'POST', data: { tea: 1 } })
    const { ms } = await wait
    assert.equal(front.count('POST /orders'), 1)
    clock.advance(ms)
    assert.equal((await request).statusCode, 200)
    assert.deepEqual(front.all('POST /orders').map(it => it.body.toString()), Array(2).fill('{"tea":1}'))
  }
})

test('after two repeats the 503 is the caller\'s', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  for (let times = 0; times < 5; times++) front.say('GET /orders', 503, 'store_unavailable', 'retry')
  let wait = clock.next(1000)
  const request = auth.request({ url: '/orders' })
  for (let times = 0; times < 2; times++) {
    const { ms } = await wait
    wait = clock.next(1000)
    clock.advance(ms)
  }
  assert.equal((await request).data.code, 'store_unavailable')
  assert.deepEqual([wx.logins, front.count('GET /orders')], [1, 3])
})

for (const [what, say] of Object.entries({
  'one that asks for a minute': () => front.say('GET /orders', 429, 'rate_limited', 'retry', { 'Retry-After': '60' }),
  'JSON that names no action': () => front.answer('GET /orders', 503, '{"error": "maintenance"}', { 'Retry-After': '1' }),
  'a gateway that asks for a minute': () => front.answer('GET /orders', 503, '<html>', { 'Retry-After': '60' }),
  'a page that is no gateway\'s': () => front.answer('GET /orders', 500, '<html>'),
  'one that nothing can be done about': () => front.say('GET /orders', 503, 'wechat_misconfigured', 'none'),
  'one that may have used a code up': () => front.say('GET /orders', 503, 'wechat_unreachable', 'retry'),
})) {
  test(`a refusal is handed on at once: ${what}`, async t => {
    const { auth } = await phoneLoggedIn(t)
    say()
    assert.ok((await auth.request({ url: '/orders' })).statusCode >= 429)
    assert.equal(front.count('GET /orders'), 1)
  })
}

for (const [status, body] of [[502, '<html>'], [503, '<html>'], [504, '<html>'], [502, ''], [503, 'Bad Gateway']]) {
  test(`a gateway's ${status} with ${JSON.stringify(body)} is retried`, async t => {
    const { auth, clock } = await phoneLoggedIn(t)
    front.answer('GET /orders', status, body, { 'Retry-After': '2' }).answer('GET /orders', 200, '{}')
    const wait = clock.next(2000)
    const request = auth.request({ url: '/orders' })
    clock.advance((await wait).ms)
    assert.equal((await request).statusCode, 200)
    assert.equal(front.count('GET /orders'), 2)
  })
}

test('a gateway\'s 503 for a download is retried', async t => {
  const { auth, clock } = await phoneLoggedIn(t)
  front.answer('GET /download', 503, '<html>')
  const wait = clock.next(1000)
  const download = auth.downloadFile({ url: '/download' })
  clock.advance((await wait).ms)
  assert.equal((await download).statusCode, 200)
})

test('a gateway\'s 503 for a login is retried with a new code', async t => {
  const { auth, clock } = phone(t)
  front.answer('POST /login', 503, '<html>')
  const wait = clock.next(1000)
  const login = auth.login()
  clock.advance(Math.max((await wait).ms, GAP))
  await login
  assert.equal(new Set(front.all('POST /login').map(it => it.body.toString())).size, 2)
})

for (const method of ['POST', 'PATCH', 'patch']) {
  test(`a gateway's 504 for a ${method} is not retried: the backend may have handled it`, async t => {
    const { auth } = await phoneLoggedIn(t)
    front.answer(`${method.toUpperCase()} /orders`, 504, '<html>')
    assert.equal((await auth.request({ url: '/orders', method })).statusCode, 504)
    assert.equal(front.seen.length, 1)
  })
}

test('a gateway\'s 504 for an upload is not retried: the backend may have handled it', async t => {
  const { auth } = await phoneLoggedIn(t)
  front.answer('POST /upload', 504, '<html>')
  assert.equal((await auth.uploadFile(FILE)).statusCode, 504)
  assert.equal(front.seen.length, 1)
})

for (const method of ['DELETE', 'PUT']) {
  test(`a gateway's 504 for a ${method} is retried`, async t => {
    const { auth, clock } = await phoneLoggedIn(t)
    front.answer(`${method} /orders`, 504, '<html>').answer(`${method} /orders`, 200, '{}')
    const wait = clock.next(1000)
    const request = auth.request({ url: '/orders', method })
    clock.advance((await wait).ms)
    assert.equal((await request).statusCode, 200)
  })
}

test('a connection that is cut settles the request', async t => {
  const { auth } = await phoneLoggedIn(t)
  const release = front.hold('GET /session')
  const over = assert.rejects(auth.request(SESSION), { code: 'wx_failed' })
  await front.arrived('GET /session', 1)
  front.server.closeAllConnections()
  await over
  release()
})

test('a platform whose calls are promises too leaves none of them unhandled', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  wx.request = ({ fail }) => { fail({ errMsg: 'request:fail' }); return Promise.reject(new Error('again')) }
  await assert.rejects(auth.request(SESSION), { message: 'request:fail' })
  wx.request = () => Promise.reject(new Error('alone'))
  await assert.rejects(auth.request(SESSION), { message: 'alone' })
})

test('an upload past a limit is not repeated: WeChat does not show when it may be', async t => {
  const { auth } = await phoneLoggedIn(t)
  front.say('POST /upload', 429, 'rate_limited', 'retry', { 'Retry-After': '60' })
  assert.equal((await auth.uploadFile(FILE)).statusCode, 429)
  assert.equal(front.count('POST /upload'), 1)
})

test('a call that is settled leaves no timer', async t => {
  const { auth, clock } = await phoneLoggedIn(t)
  await auth.request(SESSION)
  assert.deepEqual(clock.timers, [])
})

test('a call of the platform that throws is an error with a code', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  wx.request = () => { throw new TypeError('url is no string') }
  await assert.rejects(auth.request(SESSION), { code: 'wx_failed', message: 'url is no string' })
})

// --- Where the token is kept, and where it goes

test('the next start of the mini program uses the token that is stored', async t => {
  const { start, wx } = await phoneLoggedIn(t)
  assert.equal((await start().request(SESSION)).statusCode, 200)
  assert.equal(wx.logins, 1)
})

test('a full storage is no reason to fail, nor to log in twice', async t => {
  const { auth, wx } = phone(t)
  wx.full = true
  await auth.login()
  assert.deepEqual(statuses([await auth.request(SESSION), await auth.request(SESSION)]), [200, 200])
  assert.deepEqual([wx.logins, wx.storage.size], [1, 0])
})

test('a storage that can\'t be read is an empty one', async t => {
  const { start, wx } = phone(t)
  wx.getStorageSync = () => { throw new Error('getStorageSync:fail') }
  assert.equal((await start().request(SESSION)).statusCode, 200)
})

const SPOILT = [
  '', 'wxa_x', null, 7, [], {}, { endsAt: 9e15 }, { token: 7 }, { token: '' }, { token: { code: 'x' } }, { code: '' },
]

for (const spoilt of SPOILT) {
  test(`what is stored as ${JSON.stringify(spoilt)} is no token`, async t => {
    const { start, wx } = await phoneLoggedIn(t)
    for (const key of wx.storage.keys()) wx.storage.set(key, spoilt)
    assert.equal((await start().request(SESSION)).statusCode, 200)
    assert.deepEqual([wx.logins, front.count('GET /session')], [2, 1])
  })
}

test('a token is not used at another service', async t => {
  const { start, wx } = await phoneLoggedIn(t)
  await start({ baseURL: sandbox.url }).request(SESSION)
  assert.deepEqual([wx.logins, wx.storage.size], [2, 2])
})

// Asks nobody: notes where a token would have gone, and answers with a problem.
async function notesOf(url) {
  const notes = []
  const request = ({ url, header, success }) => {
    notes.push([url, header && header.Authorization])
    success({ statusCode: 401, data: { code: 'token_invalid', action: 'login' }, header: {} })
  }
  const getStorageSync = () => ({ token: 'wxa_x', endsAt: 9e15 })
  const wx = { request, getStorageSync, removeStorageSync() {}, login: ({ fail }) => fail({}) }
  await load(new Clock()).create({ baseURL: 'https://login.example.com/', wx }).request({ url }).catch(() => {})
  return notes
}

for (const url of [
  'https://other.example.com/session', 'http://login.example.com/session', 'https://login.example.com:8443/session',
  'https://login.example.com.evil.example/', 'https://login.example.com@evil.example/', 'wss://login.example.com/',
  'https://evil.example/?https://login.example.com/', 'https://evil.example#https://login.example.com',
  'https://login.example.com\\@evil.example/',
]) {
  test(`no token and no login for ${url}`, async () => {
    assert.deepEqual(await notesOf(url), [[url, undefined]])
  })
}

for (const [url, full] of Object.entries({
  '/session': 'https://login.example.com/session',
  session: 'https://login.example.com/session',
  'https://login.example.com/session': 'https://login.example.com/session',
  'HTTPS://LOGIN.example.com?a=b': 'HTTPS://LOGIN.example.com?a=b',
  '.evil.example/': 'https://login.example.com/.evil.example/',
  '@evil.example/': 'https://login.example.com/@evil.example/',
  ':8443/': 'https://login.example.com/:8443/',
  '//evil.example/': 'https://login.example.com/evil.example/',
})) {
  test(`${url} is at our own origin`, async () => {
    assert.deepEqual(await notesOf(url), [[full, 'Bearer wxa_x']])
  })
}

test('a further origin gets the token, and no other', async t => {
  const [orders, other] = await backends(t, 2, () => [200, {}])
  const { auth, wx } = await phoneLoggedIn(t, { origins: [`${orders.url}/v1/`] })
  await auth.request({ url: `${orders.url}/orders` })
  await auth.request({ url: `${other.url}/orders` })
  assert.deepEqual([orders.seen, other.seen], [[`Bearer ${stored(wx).token}`], ['']])
})

test('a body that a function returns is sent to an origin without the token too', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  let seen
  wx.request = options => { seen = options; options.success({ statusCode: 200, data: {}, header: {} }) }
  const header = { authorization: 'Basic YTpi' }
  await auth.request({ url: 'https://other.example.com/', method: 'POST', header, data: async () => ({ tea: 1 }) })
  assert.deepEqual([seen.data, seen.header], [{ tea: 1 }, { authorization: 'Basic YTpi' }])
})

test('origins are compared without case, and a name alone is none', async t => {
  const [orders] = await backends(t, 1, () => [200, {}])
  const seen = async origin => {
    const { auth } = await phoneLoggedIn(t, { origins: [origin] })
    await auth.request({ url: orders.url })
    return orders.seen.pop() !== ''
  }
  const { host } = new URL(orders.url)
  assert.deepEqual([await seen(`HTTP://${host}`), await seen(host), await seen('')], [true, false, false])
})

test('the token is given out for a socket, after a login, and none after a session that was ended', async t => {
  const { auth, wx } = phone(t)
  const tokens = await ten(() => auth.token())
  assert.deepEqual(tokens, Array(10).fill(stored(wx).token))
  assert.equal(wx.logins, 1)
  front.say('GET /orders', 401, 'session_replaced', 'ask')
  await assert.rejects(auth.request({ url: '/orders' }))
  await assert.rejects(auth.token(), { code: 'session_replaced' })
})

test('the token that is given out is live: the service is asked first', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const { token } = stored(wx)
  assert.equal(await auth.token(), token)
  await endSession(wx)
  assert.equal(await statusOf(await auth.token()), 200)
  assert.equal(wx.logins, 2)
})

test('an outage does not keep a token that is stored back', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  front.say('GET /session', 503, 'store_unavailable', 'retry', { 'Retry-After': '60' })
  assert.equal(await auth.token(), stored(wx).token)
})

for (const name of ['Authorization', 'authorization', 'AUTHORIZATION']) {
  test(`a header ${name} of the caller is replaced`, async t => {
    const { auth, wx } = await phoneLoggedIn(t)
    let seen
    const { request } = wx
    wx.request = options => { seen = options.header; return request(options) }
    await auth.request({ ...SESSION, header: { [name]: 'Bearer old', 'X-Page': 'index' } })
    assert.deepEqual({ ...seen }, { Authorization: `Bearer ${stored(wx).token}`, 'X-Page': 'index' })
  })
}

test('what the caller says reaches the platform', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  let seen
  const { request } = wx
  wx.request = options => { seen = options; return request(options) }
  await auth.request({ ...SESSION, timeout: 1234, enableHttp2: true, header: { 'X-Page': 'index' } })
  assert.deepEqual([seen.timeout, seen.enableHttp2, seen.header['X-Page']], [1234, true, 'index'])
  assert.equal(seen.header.Authorization, `Bearer ${stored(wx).token}`)
})

// --- Logging out

test('a logout ends the session and forgets the token', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const { token } = stored(wx)
  assert.equal(await auth.logout(), true)
  assert.deepEqual([await statusOf(token), wx.storage.size], [401, 0])
})

test('a logout without a token, or of a session that has ended, is done', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  await endSession(wx)
  assert.deepEqual([await auth.logout(), await auth.logout(), front.count('DELETE /session')], [true, true, 1])
})

for (const code of ['token_invalid', 'session_replaced', 'session_revoked', 'user_banned']) {
  test(`a logout of a session that does not exist is done: ${code}`, async t => {
    const { auth } = await phoneLoggedIn(t)
    front.say('DELETE /session', code === 'user_banned' ? 403 : 401, code, 'none')
    assert.equal(await auth.logout(), true)
  })
}

for (const [what, say] of Object.entries({
  'a firewall\'s 403': () => front.answer('DELETE /session', 403, '<html>'),
  'a 401 that is not the service\'s': () => front.answer('DELETE /session', 401, '<html>'),
  'a 401 about another credential': () => front.say('DELETE /session', 401, 'client_unauthorized', 'none'),
  'a 200': () => front.answer('DELETE /session', 200, '<html>'),
})) {
  test(`a logout is not confirmed by ${what}`, async t => {
    const { auth, wx } = await phoneLoggedIn(t)
    say()
    assert.deepEqual([await auth.logout(), wx.storage.size], [false, 0])
  })
}

test('a logout that the service does not hear of says so, and forgets the token all the same', async t => {
  for (const prepare of [
    () => front.say('DELETE /session', 500, 'internal_error', 'none'),
    wx => { wx.request = ({ fail }) => fail({ errMsg: 'request:fail' }) },
  ]) {
    const { auth, wx } = await phoneLoggedIn(t)
    prepare(wx)
    assert.equal(await auth.logout(), false)
    assert.equal(wx.storage.size, 0)
  }
})

test('a logout tries again while the store can\'t be asked', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  const { token } = stored(wx)
  front.say('DELETE /session', 503, 'store_unavailable', 'retry', { 'Retry-After': '1' })
  const wait = clock.next(1000)
  const logout = auth.logout()
  clock.advance((await wait).ms)
  assert.deepEqual([await logout, await statusOf(token)], [true, 401])
})

test('a logout during a login ends what that login brings', async t => {
  const { auth, wx } = phone(t)
  const release = front.hold('POST /login')
  const login = auth.login()
  await front.arrived('POST /login', 1)
  const logout = auth.logout()
  release()
  await login
  assert.equal(await logout, true)
  assert.deepEqual([wx.storage.size, front.count('DELETE /session')], [0, 1])
})

test('a logout during the login of a request is not undone', async t => {
  const { auth, wx } = phone(t)
  const release = front.hold('POST /login')
  const waiting = [auth.request(SESSION), auth.uploadFile(FILE), auth.token()]
  await front.arrived('POST /login', 1)
  const logout = auth.logout()
  release()
  const ends = await Promise.allSettled(waiting)
  assert.deepEqual(ends.map(it => it.reason && it.reason.code), Array(3).fill('logged_out'))
  assert.equal(await logout, true)
  assert.deepEqual([wx.logins, wx.storage.size], [1, 0])
  assert.deepEqual(['GET /session', 'POST /upload', 'DELETE /session'].map(it => front.count(it)), [0, 0, 1])
})

test('a request that a logout overtakes logs nobody in again', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const release = front.hold('GET /session')
  await endSession(wx)
  const request = auth.request(SESSION)
  await front.arrived('GET /session', 1)
  await auth.logout()
  release()
  await assert.rejects(request, { code: 'logged_out' })
  assert.deepEqual([wx.logins, wx.storage.size], [1, 0])
})

test('a request that waits for its time to retry does not undo a logout', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  front.say('GET /session', 503, 'store_unavailable', 'retry', { 'Retry-After': '1' })
  const pause = clock.next(1000)
  const request = auth.request(SESSION)
  await pause
  await auth.logout()
  clock.advance(2000)
  await assert.rejects(request, { code: 'logged_out' })
  assert.deepEqual([wx.logins, wx.storage.size], [1, 0])
})

// --- The phone number, and what WeChat seals

// What WeChat would do on this phone, or on another of the same user.
const post = async (path, data) => {
  const headers = { 'Content-Type': 'application/json' }
  const { body } = await ask(`${sandbox.url}${path}`, { method: 'POST', headers, body: JSON.stringify(data) })
  return JSON.parse(body)
}
const tapPhoneButton = async user => (await post('/sandbox/getPhoneNumber', { user })).code
const getUserProfile = user => post('/sandbox/wx.getUserProfile', { user })
const logInElsewhere = async user => post('/login', await post('/sandbox/wx.login', { user, new_key: true }))

test('a phone code brings the number, but of the user who tapped', async t => {
  const { auth } = await phoneLoggedIn(t)
  assert.match((await auth.phone(await tapPhoneButton('alice'))).purePhoneNumber, /^120666\d{5}$/)
  await assert.rejects(auth.phone(await tapPhoneButton('mallory')), { code: 'code_invalid' })
})

test('user data is opened, also where other phones have replaced its key', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  const stale = await getUserProfile('alice')
  assert.equal((await auth.userData(() => getUserProfile('alice'))).nickName, 'alice')
  await logInElsewhere('alice')
  await logInElsewhere('alice')
  const asked = []
  const get = async () => { asked.push(wx.logins); return asked.length > 1 ? getUserProfile('alice') : stale }
  assert.equal((await auth.userData(get)).nickName, 'alice')
  assert.deepEqual(asked, [1, 2])
})

test('who gives no phone number is told apart, and nothing is sent', async t => {
  const { auth } = await phoneLoggedIn(t)
  await assert.rejects(auth.phone(undefined), { code: 'no_phone_code' })
  assert.deepEqual(front.seen, [])
})

const USED_UP = { code_invalid: 'login', code_used: 'login', wechat_unreachable: 'retry' }

for (const [code, action] of Object.entries(USED_UP)) {
  test(`a phone code is not sent twice: ${code}`, async t => {
    const { auth, wx } = await phoneLoggedIn(t)
    front.say('POST /phone', 400, code, action)
    await assert.rejects(auth.phone('c'), { code, message: `made up: ${code}` })
    assert.deepEqual([wx.logins, front.count('POST /phone')], [1, 1])
  })
}

test('a phone code outlives the token: the service never saw it', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  front.say('POST /phone', 401, 'token_invalid', 'login').answer('POST /phone', 200, '{}')
  await auth.phone('c')
  assert.deepEqual([wx.logins, front.count('POST /phone')], [2, 2])
})

test('user data is asked of WeChat after the login', async t => {
  const { auth, wx } = phone(t)
  front.answer('POST /userdata/decrypt', 200, '{"nickName": "Band"}')
  const get = async () => ({ encryptedData: `after ${wx.logins}`, iv: 'iv', rawData: 'not asked for' })
  assert.equal((await auth.userData(get)).nickName, 'Band')
  const sent = front.all('POST /userdata/decrypt').map(it => JSON.parse(it.body))
  assert.deepEqual(sent, [{ encryptedData: 'after 1', iv: 'iv' }])
})

test('stale user data is asked of WeChat again, after a new login', async t => {
  const { auth, wx } = await phoneLoggedIn(t)
  front.say('POST /userdata/decrypt', 409, 'session_key_stale', 'login').answer('POST /userdata/decrypt', 200, '{}')
  await auth.userData(async () => ({ encryptedData: `after ${wx.logins}`, iv: 'iv' }))
  const sent = front.all('POST /userdata/decrypt').map(it => JSON.parse(it.body).encryptedData)
  assert.deepEqual(sent, ['after 1', 'after 2'])
})

test('a user who keeps the data settles the promise', async t => {
  const { auth } = await phoneLoggedIn(t)
  const refusal = { errMsg: 'getUserInfo:fail auth deny' }
  await assert.rejects(auth.userData(() => Promise.reject(refusal)), refusal)
})

// --- Scans and tickets

const CODE = 'BCDF-GHJK'
const LINK = 'https://login.example.com/device?user_code='
const QUERIES = {
  'a mini-program code': [{ scene: 'BCDFGHJK' }, CODE],
  'a mini-program code that is encoded once more': [{ scene: 'BCDF%2DGHJK' }, CODE],
  'an ordinary code': [{ q: encodeURIComponent(LINK + CODE), scancode_time: '1800000000' }, CODE],
  'a link with more in it': [{ q: encodeURIComponent(`${LINK.replace('?', '?a=1&')}${CODE}&b=2#c`) }, CODE],
  'small letters': [{ scene: 'bcdf-ghjk' }, CODE],
  'no scan': [{}, null],
  'a vowel': [{ scene: 'ACDFGHJK' }, null],
  'a letter too few': [{ scene: 'BCDFGHJ' }, null],
  'a letter too many': [{ scene: 'BCDFGHJKL' }, null],
  'another link': [{ q: encodeURIComponent('https://login.example.com/BCDFGHJK') }, null],
  'another member of the link': [{ q: encodeURIComponent(`https://login.example.com/device?my_user_code=${CODE}`) }, null],
  'what cannot be decoded': [{ scene: '%' }, null],
  'a path in place of a code': [{ q: encodeURIComponent(`${LINK}../session`) }, null],
}

for (const [what, [query, code]] of Object.entries(QUERIES)) {
  test(`scanned returns ${code} for ${what}`, async t => assert.equal(phone(t).auth.scanned(query), code))
}

const DEVICE = {
  client_id: 'console', client_name: 'console', created_at: 1.8e9 - 130, expires_in: 170, network: '203.0.113.0/24',
}
const answers = ({ body }) => JSON.parse(body.toString())

test('device tells who asks, after a login if needed', async t => {
  const { auth, wx } = phone(t)
  front.answer(`GET /device/${CODE}`, 200, JSON.stringify(DEVICE))
  assert.deepEqual({ ...(await auth.device(CODE)) }, DEVICE)
  assert.deepEqual([wx.logins, front.all(`GET /device/${CODE}`)[0].authorization], [1, `Bearer ${stored(wx).token}`])
})

test('a code is sent as one segment of the path', async t => {
  const { auth } = await phoneLoggedIn(t)
  front.answer('GET /device/..%2Fsession%3F', 200, '{}')
  await auth.device('../session?')
  assert.deepEqual(front.seen.map(it => it.what), ['GET /device/..%2Fsession%3F'])
})

for (const [name, approve] of [['approve', true], ['deny', false]]) {
  test(`${name} sends its answer once`, async t => {
    const { auth } = await phoneLoggedIn(t)
    front.answer(`POST /device/${CODE}`, 204, '')
    assert.equal(await auth[name](CODE), undefined)
    assert.deepEqual(front.all(`POST /device/${CODE}`).map(answers), [{ approve }])
  })

  test(`${name} rejects with the problem: a code that is not valid any more`, async t => {
    const { auth } = await phoneLoggedIn(t)
    front.say(`POST /device/${CODE}`, 404, 'not_found', 'none')
    await assert.rejects(auth[name](CODE), { code: 'not_found', message: 'made up: not_found' })
  })

  test(`${name} does not take another answer for a success`, async t => {
    const { auth } = await phoneLoggedIn(t)
    front.answer(`POST /device/${CODE}`, 200, '{}')
    await assert.rejects(auth[name](CODE), { code: 'not_understood' })
  })

  test(`${name} is sent again after a renewal, or if the service says so`, async t => {
    const { auth, wx, clock } = await phoneLoggedIn(t)
    front.say(`POST /device/${CODE}`, 401, 'token_invalid', 'login')
    front.say(`POST /device/${CODE}`, 503, 'store_unavailable', 'retry', { 'Retry-After': '1' })
    front.answer(`POST /device/${CODE}`, 204, '')
    const waiting = clock.next(1000)
    const answer = auth[name](CODE)
    clock.advance((await waiting).ms)
    await answer
    assert.deepEqual([wx.logins, front.count(`POST /device/${CODE}`)], [2, 3])
  })

  test(`${name} is not sent again after an answer of a gateway: the service may have handled it`, async t => {
    const { auth } = await phoneLoggedIn(t)
    front.answer(`POST /device/${CODE}`, 502, '<html>')
    await assert.rejects(auth[name](CODE), { code: 'not_understood' })
    assert.equal(front.count(`POST /device/${CODE}`), 1)
  })
}

test('ticket returns the ticket', async t => {
  const { auth } = await phoneLoggedIn(t)
  front.answer('POST /ticket', 200, '{"ticket": "wxt_1", "expires_in": 60}')
  assert.equal(await auth.ticket(), 'wxt_1')
})

test('ticket rejects with the problem', async t => {
  const { auth } = await phoneLoggedIn(t)
  front.say('POST /ticket', 403, 'insufficient_scope', 'none')
  await assert.rejects(auth.ticket(), { code: 'insufficient_scope' })
})

// --- The types, and the mini program around it

test('what the types promise is there, and nothing else', t => {
  const types = fs.readFileSync(path.join(EXAMPLE, 'wxauth.d.ts'), 'utf8')
  const [, client] = /export interface Client {(.*?)^}/ms.exec(types)
  const promised = [...client.matchAll(/^  (\w+)[<(]/gm)].map(([, name]) => name)
  assert.deepEqual(promised, Object.keys(phone(t).auth))
})

async function openedPage(t) {
  const { wx, clock } = phone(t)
  const page = open(clock, wx, front.url)
  await page.onLoad()
  return { page, wx, clock }
}

test('the page shows the session and the list, after one login', async t => {
  const { page, wx } = await openedPage(t)
  const { session, sessions, busy, error } = page.data
  assert.match(session.openid, /^oSANDBOX/)
  assert.equal(sessions.filter(it => it.current).length, 1)
  assert.deepEqual([wx.logins, busy, error], [1, false, ''])
})

test('the page logs in again, and out', async t => {
  const { page, wx, clock } = await openedPage(t)
  clock.advance(GAP)
  await page.logIn()
  assert.deepEqual([wx.logins, page.data.error], [2, ''])
  await page.logOut()
  assert.deepEqual([page.data.session, page.data.sessions.length, page.data.error, wx.storage.size], [null, 0, '', 0])
})

test('the page shows that the session was replaced, asks, and logs in again when the user wants it', async t => {
  const { page, wx, clock } = await openedPage(t)
  clock.advance(GAP)
  let dialog
  wx.showModal = options => { dialog = options }
  wx.reLaunch = () => page.onLoad()
  front.say('GET /session', 401, 'session_replaced', 'ask').say('GET /sessions', 401, 'session_replaced', 'ask')
  await page.show()
  assert.deepEqual([page.data.session, page.data.error], [null, '已退出登录 · Logged out'])
  assert.match(dialog.content, /another device/)
  dialog.success({ confirm: false })
  assert.equal(wx.logins, 1)
  await dialog.success({ confirm: true })
  assert.match(page.data.session.openid, /^oSANDBOX/)
  assert.equal(wx.logins, 2)
})

test('the page shows the phone number, or that none was given', async t => {
  const { page } = await openedPage(t)
  front.answer('POST /phone', 200, '{"purePhoneNumber": "12066600001"}')
  await page.givePhone({ detail: { code: 'c' } })
  assert.equal(page.data.phone, '12066600001')
  await page.givePhone({ detail: { errMsg: 'getPhoneNumber:fail user deny' } })
  assert.match(page.data.error, /No phone number/)
})

test('the page says what went wrong', async t => {
  const { wx, clock } = phone(t)
  wx.outcomes = ['40226']
  const page = open(clock, wx, front.url)
  await page.onLoad()
  assert.match(page.data.error, /WeChat has blocked/)
  assert.deepEqual([page.data.session, page.data.busy], [null, false])
})

const SCANNED = 1047

// The page of a scan, loaded with this query. `entry` is WeChat's number for how the mini program was opened.
async function scanPage(t, query = { scene: 'BCDFGHJK' }, entry = SCANNED) {
  const { wx, clock } = phone(t)
  wx.getEnterOptionsSync = () => ({ scene: entry })
  const page = open(clock, wx, front.url, 'scan', { Date: clock.Date })
  await page.onLoad(query)
  return { page, wx, clock }
}

const asks = (more = {}) => front.answer(`GET /device/${CODE}`, 200, JSON.stringify({ ...DEVICE, ...more }))

test('the scan page shows who asks, how long ago and from where, and sends nothing by itself', async t => {
  asks()
  const { page } = await scanPage(t)
  const { asking, code, busy, error, result } = page.data
  assert.deepEqual({ ...asking }, { name: 'console', network: '203.0.113.0/24', ago: '2 分钟前 · 2 min ago' })
  assert.deepEqual([code, busy, error, result], [CODE, false, '', ''])
  assert.equal(front.count(`POST /device/${CODE}`), 0)
})

test('the scan page calls a request of the last minute new, also if the clock of the phone is behind', async t => {
  for (const created_at of [1.8e9 - 59, 1.8e9 + 600]) {
    asks({ created_at })
    assert.equal((await scanPage(t)).page.data.asking.ago, '刚刚 · just now')
  }
})

test('the scan page says that the network is not known', async t => {
  asks({ network: 'unknown' })
  assert.equal((await scanPage(t)).page.data.asking.network, '未知 · unknown')
})

for (const [tap, approve, words] of [['approve', true, /登录成功/], ['deny', false, /已拒绝/]]) {
  test(`the scan page sends the answer of the user: ${tap}`, async t => {
    asks().answer(`POST /device/${CODE}`, 204, '')
    const { page } = await scanPage(t)
    await page[tap]()
    assert.deepEqual(front.all(`POST /device/${CODE}`).map(answers), [{ approve }])
    assert.match(page.data.result, words)
    assert.equal(page.data.asking, null)
  })
}

test('the scan page says that a code is not valid any more, and does not let the user approve it', async t => {
  asks().say(`POST /device/${CODE}`, 404, 'not_found', 'none')
  const { page } = await scanPage(t)
  await page.approve()
  assert.match(page.data.error, /登录码已失效/)
  assert.deepEqual([page.data.asking, page.data.result, page.data.busy], [null, '', false])
})

test('the scan page keeps the question if the answer did not arrive', async t => {
  asks().answer(`POST /device/${CODE}`, 502, '<html>')
  const { page } = await scanPage(t)
  await page.approve()
  assert.match(page.data.error, /502/)
  assert.equal(page.data.asking.name, 'console')
})

test('the scan page asks nothing without a code', async t => {
  const { page } = await scanPage(t, { scene: 'a-table-of-a-restaurant' })
  assert.match(page.data.error, /没有识别到登录码/)
  assert.deepEqual(front.seen, [])
})

// A picture, a card in a chat, another mini program, a link, an application.
for (const entry of [1012, 1013, 1048, 1049, 1007, 1008, 1037, 1065, 1069]) {
  test(`the scan page refuses a code that the camera has not read: ${entry}`, async t => {
    const { page } = await scanPage(t, { scene: 'BCDFGHJK' }, entry)
    assert.match(page.data.error, /不支持图片和链接/)
    assert.deepEqual([page.data.code, front.seen], ['', []])
  })
}

test('the scan page accepts an ordinary QR code that the camera has read', async t => {
  asks()
  const { page } = await scanPage(t, { scene: 'BCDFGHJK' }, 1011)
  assert.equal(page.data.asking.name, 'console')
})

test('the web-view page opens the page with a ticket in the fragment', async t => {
  const { wx, clock } = await phoneLoggedIn(t)
  const page = open(clock, wx, front.url, 'web')
  front.answer('POST /ticket', 200, '{"ticket": "wxt_/#&1", "expires_in": 60}')
  await page.onLoad()
  const { hash, search, pathname } = new URL(page.data.src)
  assert.deepEqual([new URLSearchParams(hash.slice(1)).get('ticket'), search, pathname], ['wxt_/#&1', '', '/page'])
})

test('the web-view page opens nothing without a ticket, and tries again', async t => {
  const { wx, clock } = await phoneLoggedIn(t)
  const page = open(clock, wx, front.url, 'web')
  front.say('POST /ticket', 403, 'user_banned', 'none').answer('POST /ticket', 200, '{"ticket": "wxt_1"}')
  await page.onLoad()
  assert.deepEqual([page.data.src, page.data.error], ['', '账号已停用 · This account is banned'])
  await page.show()
  assert.deepEqual([page.data.src.split('#')[1], page.data.error], ['ticket=wxt_1', ''])
})

// What a website sends: a form, as a client without a secret.
async function websiteAsks(path, fields = {}) {
  const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
  const body = String(new URLSearchParams({ client_id: 'console', ...fields }))
  return JSON.parse((await ask(`${sandbox.url}${path}`, { method: 'POST', headers, body })).body)
}

const GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
const poll = ({ device_code }) => websiteAsks('/token', { grant_type: GRANT, device_code })

// The scan page after a scan of a code of the real service, and what the website got with the code.
async function scanned(t) {
  const asked = await websiteAsks('/device_authorization')
  const { page } = await scanPage(t, { q: encodeURIComponent(asked.verification_uri_complete) })
  return { asked, page }
}

test('the scan page logs in a website at the real service, once', async t => {
  const { asked, page } = await scanned(t)
  assert.deepEqual([page.data.asking.name, page.data.asking.network], ['console', '127.0.0.0/24'])
  await page.approve()
  const { access_token } = await poll(asked)
  assert.equal(await statusOf(access_token), 200)
  await page.show()
  assert.match(page.data.error, /登录码已失效/)
})

test('the scan page refuses the login of a website at the real service', async t => {
  const { asked, page } = await scanned(t)
  await page.deny()
  assert.equal((await poll(asked)).error, 'access_denied')
})

test('a ticket logs in a page at the real service, once', async t => {
  const { auth } = phone(t)
  const ticket = await auth.ticket()
  const { token } = await post('/login', { ticket })
  assert.equal(await statusOf(token), 200)
  assert.equal((await post('/login', { ticket })).code, 'code_invalid')
})

test('the page opens the website', async t => {
  const { page, wx } = await openedPage(t)
  const opened = []
  wx.navigateTo = ({ url }) => opened.push(url)
  page.openWeb()
  assert.deepEqual(opened, ['/pages/web/index'])
})

test('what the README shows works as it stands', async t => {
  const { wx, clock } = phone(t)
  const page = shown('README.md', clock, wx, front.url)
  await page.onLoad()
  assert.match(page.data.openid, /^oSANDBOX/)
  assert.deepEqual([await page.onLogout(), wx.logins, wx.storage.size], [true, 1, 0])
})

test('what the page about the mini program shows works as it stands', async t => {
  const { wx, clock } = phone(t)
  front.answer('POST /phone', 200, '{"purePhoneNumber": "12066600001"}')
  front.answer('POST /userdata/decrypt', 200, '{"stepInfoList": []}')
  wx.getWeRunData = async () => ({ encryptedData: 'sealed', iv: 'iv' })
  const page = shown('docs/mini-program.md', clock, wx, front.url)
  await page.onLoad()
  await page.onPhone({ detail: { code: 'c' } })
  await page.onSteps()
  assert.equal((await page.onUpload({ detail: { avatarUrl: __filename } })).statusCode, 200)
  assert.match(page.data.session.openid, /^oSANDBOX/)
  assert.deepEqual([page.data.purePhoneNumber, page.data.steps.stepInfoList.length], ['12066600001', 0])
  await page.onLogout()
  assert.deepEqual([page.data.session, page.data.ended, wx.logins, wx.storage.size], [null, true, 1, 0])
})

// --- The last test, for it ends the service

test('a killed service settles what is on its way and what comes, and its successor is logged in to', async t => {
  const { auth, wx, clock } = await phoneLoggedIn(t)
  wx.outcomes = ['stall']
  const underWay = assert.rejects(auth.login({ force: true }), { code: 'wx_failed' })
  await front.arrived('POST /login', 1)
  await sandbox.stop()
  await underWay
  const ends = await Promise.allSettled([auth.request(SESSION), auth.uploadFile(FILE), auth.downloadFile(SESSION)])
  assert.deepEqual(ends.map(it => it.reason && it.reason.code), Array(3).fill('wx_failed'))
  await sandbox.start()
  clock.advance(GAP)
  assert.equal((await auth.request(SESSION)).statusCode, 200)
  assert.equal(wx.logins, 3)
})
