// An Express application: it asks /verify for the user of a token. docs/other-backends.md says what it must answer.
//
//   npm install express
//   WXAUTH_URL=http://127.0.0.1:8000 PORT=9000 node app.js
//
// Set WXAUTH_APPID if the service has several mini programs.

const express = require('express')

const { WXAUTH_URL, WXAUTH_APPID, PORT = '9000' } = process.env
if (!WXAUTH_URL) throw new Error('WXAUTH_URL is needed')

// Set `request.openid`, or answer with the problem of the service.
async function loginRequired(request, response, next) {
  try {
    const headers = { authorization: request.get('authorization') ?? '' }
    const answer = await fetch(`${WXAUTH_URL}/verify`, { headers, redirect: 'error', signal: AbortSignal.timeout(2000) })
    const openid = answer.headers.get('x-wx-openid') ?? ''
    if (answer.status === 204 && /^[^,]+$/.test(openid)) { // a header that is there twice has a comma
      if (WXAUTH_APPID && answer.headers.get('x-wx-appid') !== WXAUTH_APPID) {
        return response.status(401).set('WWW-Authenticate', 'Bearer').json({ code: 'other_appid', action: 'none' })
      }
      request.openid = openid
      return next()
    }
    const isProblem = answer.headers.get('content-type') === 'application/problem+json'
    if (!isProblem || ![401, 403].includes(answer.status)) throw new Error(`verify answered ${answer.status}`)
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await answer.arrayBuffer())
    const problem = JSON.parse(text)
    const challenge = answer.headers.get('www-authenticate') ?? ''
    const isValid = [problem?.code, problem?.action].every(it => typeof it === 'string') && /^[ -~]*$/.test(challenge)
    if (!isValid) throw new Error('verify answered something else')
    if (challenge) response.set('WWW-Authenticate', challenge)
    response.status(answer.status).type('application/problem+json').send(text)
  } catch (error) {
    // The token can't be checked now. Answer 503, so that the client retries and does not log in again.
    console.error(error.message)
    response.status(503).set('Retry-After', '1').json({ code: 'auth_unavailable', action: 'retry' })
  }
}

const app = express()

app.get('/orders', loginRequired, (request, response) => {
  response.json({ openid: request.openid, orders: [] })
})

app.listen(Number(PORT), '127.0.0.1')
