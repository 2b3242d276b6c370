// Use openapi-fetch with the types of openapi-typescript: `openapi_fetch.mjs URL CODE ID SECRET` prints the answers.
import createClient from 'openapi-fetch'
import type { paths } from './contract.js'

declare const process: { argv: string[] }

const [url, code, id, secret] = process.argv.slice(2)
const api = createClient<paths>({ baseUrl: url })
const { data: login } = await api.POST('/login', { body: { code } })
const token: string = login!.token
const phone = { headers: { Authorization: `Bearer ${token}` } }
// This Content-Type makes openapi-fetch send a form.
const form = 'application/x-www-form-urlencoded'
const backend = {
  headers: { Authorization: `Basic ${btoa(`${id}:${secret}`)}`, 'Content-Type': form },
  body: { token }
}

const session = await api.GET('/session', phone)
const verify = await api.GET('/verify', phone)
const alive = await api.POST('/introspect', backend)
await api.DELETE('/session', phone)
const ended = await api.POST('/introspect', backend)
const refused = await api.GET('/session', phone)
console.log(
  JSON.stringify({
    session: session.data?.openid,
    verify: verify.response.headers.get('X-WX-OpenID'),
    alive: alive.data,
    ended: ended.data,
    problem: [refused.response.status, refused.error?.code, refused.error?.action]
  })
)
