// Introspect and revoke with oauth4webapi: `oauth4webapi.mjs URL TOKEN ID SECRET` prints what it made of the answers.
import * as oauth from 'oauth4webapi'

const [url, token, id, secret] = process.argv.slice(2)
const server = { issuer: url, introspection_endpoint: `${url}/introspect`, revocation_endpoint: `${url}/revoke` }
const client = { client_id: id }
const auth = oauth.ClientSecretBasic(secret)
const options = { [oauth.allowInsecureRequests]: true }

async function introspect() {
  const answer = await oauth.introspectionRequest(server, client, auth, token, options)
  return oauth.processIntrospectionResponse(server, client, answer)
}

const alive = await introspect()
const revoked = await oauth.revocationRequest(server, client, auth, token, options)
await oauth.processRevocationResponse(revoked)
const ended = await introspect()
console.log(JSON.stringify({ sub: alive.sub, revoked: revoked.status, active: ended.active }))
