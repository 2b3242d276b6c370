// A backend in another language: it calls /introspect to get the user of a token. docs/other-backends.md says what it
// must answer.
// Plain Node.js (18 or newer), no dependencies:
//
//   WXAUTH_URL=http://127.0.0.1:8000 WXAUTH_CLIENT=shop:a-long-random-secret PORT=9000 node server.mjs
//
// WXAUTH_CLIENT is one entry of the service's WXAUTH_CLIENTS. Set WXAUTH_APPID if the service has several mini
// programs: an openid is unique within its appid only.

import { createServer } from 'node:http'

const { WXAUTH_URL, WXAUTH_CLIENT, WXAUTH_APPID, PORT = '9000' } = process.env
if (!WXAUTH_URL || !WXAUTH_CLIENT) throw new Error('WXAUTH_URL and WXAUTH_CLIENT are needed')
const CREDENTIAL = `Basic ${Buffer.from(WXAUTH_CLIENT).toString('base64')}`

// Return the session of a token, or null if the token is not valid. Throw if the service can't tell.
async function introspect(token) {
  const answer = await fetch(new URL('/introspect', WXAUTH_URL), {
    method: 'POST',
    headers: { Authorization: CREDENTIAL },
    body: new URLSearchParams({ token }),
    redirect: 'error',
    signal: AbortSignal.timeout(2000),
  })
  if (answer.status !== 200) throw new Error(`introspect answered ${answer.status}`)
  const session = await answer.json()
  if (session?.active === false) return null
  if (session?.active !== true || !session.sub) throw new Error('introspect answered something else')
  return session
}

function send(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', ...headers })
  response.end(JSON.stringify(body))
}

async function answer(request, response) {
  const token = (request.headers.authorization ?? '').replace(/^bearer +/i, '')
  let session = null
  try {
    if (token) session = await introspect(token)
  } catch (error) {
    // The token can't be checked now. Answer 503, so that the client retries and does not log in again.
    console.error(error.message)
    return send(response, 503, { code: 'auth_unavailable', action: 'retry' }, { 'Retry-After': '1' })
  }
  // No `action`: /introspect does not say why a token is not active, so the client asks the service.
  if (!session) return send(response, 401, { error: 'invalid_token' }, { 'WWW-Authenticate': 'Bearer' })
  if (WXAUTH_APPID && session.client_id !== WXAUTH_APPID) {
    return send(response, 401, { code: 'other_appid', action: 'none' }, { 'WWW-Authenticate': 'Bearer' })
  }
  return send(response, 200, { openid: session.sub, orders: [] })
}

createServer(answer).listen(Number(PORT), '127.0.0.1')
