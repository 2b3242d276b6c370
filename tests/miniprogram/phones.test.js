// Several phones of one user, each with the real client, against the real service. Time is real here.
// SECONDS=60 lets them go on for a minute: `SECONDS=60 node --test phones.test.js`.

const assert = require('node:assert/strict')
const { after, before, describe, test } = require('node:test')
const { Wx } = require('./phone.js')
const { ask, Sandbox } = require('./service.js')
const { create } = require('../../examples/miniprogram/wxauth.js')

const SECONDS = Number(process.env.SECONDS || 4)
const CLIENT = 'operator:a-secret-of-the-operator'
const BASIC = `Basic ${Buffer.from(CLIENT).toString('base64')}`
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

/** A phone that sends a request every 200 ms, and counts what happens. */
class Phone {
  constructor(service, user) {
    this.wx = new Wx(service, user)
    this.told = []
    this.answers = []
    this.client = create({ baseURL: service.url, wx: this.wx, onEnded: ({ code }) => this.told.push(code) })
  }

  async request() {
    const { statusCode } = await this.client.request({ url: '/session' }).catch(error => ({ statusCode: error.code }))
    this.answers.push(statusCode)
    return statusCode
  }

  async useUntil(end) {
    while (Date.now() < end) {
      await this.request()
      await pause(200)
    }
  }
}

function operator(service, method, path, body) {
  const headers = { Authorization: BASIC, 'Content-Type': 'application/x-www-form-urlencoded' }
  return ask(`${service.url}${path}`, { method, headers, body })
}

async function userPath(phone) {
  const { data } = await phone.client.request({ url: '/session' })
  return `/users/${data.appid}/${data.openid}`
}

for (const limit of [1, 2, 10]) {
  describe(`with ${limit} sessions`, () => {
    const service = new Sandbox({ WXAUTH_MAX_SESSIONS: String(limit) })
    before(() => service.start())
    after(() => service.stop())

    test('one phone more settles after one exchange', async () => {
      const phones = []
      for (let number = 0; number <= limit; number++) {
        phones.push(new Phone(service, 'alice'))
        assert.equal(await phones[number].request(), 200)
      }
      await Promise.all(phones.map(phone => phone.useUntil(Date.now() + SECONDS * 1000)))
      const [oldest, ...others] = phones
      assert.deepEqual(phones.map(({ wx }) => wx.logins), phones.map(() => 1))
      assert.deepEqual(oldest.told, ['session_replaced'])
      assert.deepEqual(new Set(oldest.answers.slice(1)), new Set(['session_replaced']))
      assert.deepEqual(others.flatMap(({ told }) => told), [])
      assert.deepEqual(new Set(others.flatMap(({ answers }) => answers)), new Set([200]))
    })

    test('the older phone takes over when its user asks', async () => {
      const phones = [new Phone(service, 'bob'), new Phone(service, 'bob')]
      for (const phone of phones) await phone.request()
      if (limit > 1) return assert.equal(await phones[0].request(), 200)
      assert.equal(await phones[0].request(), 'session_replaced')
      await phones[0].client.login()
      assert.equal(await phones[0].request(), 200)
      assert.equal(await phones[1].request(), 'session_replaced')
    })
  })
}

describe('a session that ended elsewhere', () => {
  const service = new Sandbox({ WXAUTH_CLIENTS: CLIENT })
  before(() => service.start())
  after(() => service.stop())

  const ends = {
    'another device': async (phone, other) => other.client.request({ url: '/sessions?keep=current', method: 'DELETE' }),
    'the operator': async phone => operator(service, 'DELETE', `${await userPath(phone)}/sessions`),
    '/revoke': async phone => operator(service, 'POST', '/revoke', `token=${await phone.client.token()}`),
  }
  for (const [name, end] of Object.entries(ends)) {
    test(`ended by ${name}: the phone is told once and logs in only when asked`, async () => {
      const phones = [new Phone(service, name), new Phone(service, name)]
      for (const phone of phones) assert.equal(await phone.request(), 200)
      await end(...phones)
      const [phone] = phones
      for (let round = 0; round < 3; round++) assert.equal(await phone.request(), 'session_revoked')
      assert.deepEqual([phone.told, phone.wx.logins], [['session_revoked'], 1])
      await phone.client.login()
      assert.equal(await phone.request(), 200)
    })
  }

  test('ended by a ban: the answer is 403, and there is no login', async () => {
    const phone = new Phone(service, 'mallory')
    await phone.request()
    await operator(service, 'PUT', `${await userPath(phone)}/ban`)
    assert.deepEqual([await phone.request(), await phone.request()], [403, 403])
    assert.equal(await phone.client.logout(), true)
    assert.deepEqual([phone.told, phone.wx.logins], [[], 1])
  })

  test('own logout: the next request logs in again', async () => {
    const phone = new Phone(service, 'carol')
    await phone.request()
    assert.equal(await phone.client.logout(), true)
    assert.deepEqual([await phone.request(), phone.told, phone.wx.logins], [200, [], 2])
  })

  test('while Redis is down the reason waits: first 503, then the reason', async () => {
    const [phone, other] = [new Phone(service, 'dave'), new Phone(service, 'dave')]
    for (const one of [phone, other]) await one.request()
    await other.client.request({ url: '/sessions?keep=current', method: 'DELETE' })
    const headers = { Authorization: `Bearer ${[...phone.wx.storage.values()][0].token}` }
    await ask(`${service.url}/sandbox/redis`, { method: 'DELETE' })
    const dark = await ask(`${service.url}/session`, { headers })
    assert.equal(dark.status, 503)
    await ask(`${service.url}/sandbox/redis`, { method: 'PUT' })
    await pause(600)
    assert.deepEqual([await phone.request(), phone.told, phone.wx.logins], ['session_revoked', ['session_revoked'], 1])
  })
})
