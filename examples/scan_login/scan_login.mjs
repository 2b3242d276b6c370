// Log a user in on a server or in a terminal by a scan with the mini program (RFC 8628), here with openid-client.
//
//   npm install openid-client
//   WXAUTH_URL=http://127.0.0.1:8000 WXAUTH_CLIENT=console:a-long-random-secret node scan_login.mjs
//
// WXAUTH_URL is the service's WXAUTH_PUBLIC_URL. WXAUTH_CLIENT is one entry of its WXAUTH_CLIENTS, without its role.

import * as oauth from 'openid-client'

const { WXAUTH_URL, WXAUTH_CLIENT } = process.env
const [id, secret] = WXAUTH_CLIENT.split(/:(.*)/s)

// The metadata of RFC 8414. Plain http is for tests on this machine only.
const metadata = new URL(`${WXAUTH_URL}/.well-known/oauth-authorization-server`)
const config = await oauth.discovery(metadata, id, undefined, oauth.ClientSecretBasic(secret), {
  algorithm: 'oauth2',
  execute: WXAUTH_URL.startsWith('http://127.0.0.1') ? [oauth.allowInsecureRequests] : [],
})

const code = await oauth.initiateDeviceAuthorization(config, {})
console.log(`扫码登录：${code.qr_code}\n登录码：${code.user_code}`)
try {
  const { access_token: token } = await oauth.pollDeviceAuthorizationGrant(config, code)
  const answer = await oauth.fetchProtectedResource(config, token, new URL(`${WXAUTH_URL}/session`), 'GET')
  console.log(`登录成功：${(await answer.json()).openid}`)
} catch (error) {
  console.error(`登录失败：${error.error ?? error.code}`)
  process.exitCode = 1
}
