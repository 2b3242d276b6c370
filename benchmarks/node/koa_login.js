'use strict';
// The login as tutorials write it, in Koa, with kept connections to WeChat and ioredis.

const crypto = require('node:crypto');
const http = require('node:http');
const Koa = require('koa');
const Redis = require('ioredis');

const redis = new Redis(process.env.REDIS_URL);
const agent = new http.Agent({ keepAlive: true });
const app = new Koa();

const { APPID, SECRET } = require('./users');

function read(stream) {
  return new Promise((resolve, reject) => {
    let text = '';
    stream.setEncoding('utf8');
    stream.on('data', (part) => { text += part; });
    stream.on('end', () => resolve(text));
    stream.on('error', reject);
  });
}

function exchange(code) {
  const query = new URLSearchParams({
    appid: APPID, secret: SECRET, js_code: code, grant_type: 'authorization_code',
  });
  return new Promise((resolve, reject) => {
    http.get(`${process.env.WXAUTH_WECHAT_URL}/sns/jscode2session?${query}`, { agent }, (response) => {
      read(response).then(JSON.parse).then(resolve, reject);
    }).on('error', reject);
  });
}

app.use(async (ctx) => {
  const { code } = JSON.parse(await read(ctx.req));
  const { openid, session_key, unionid } = await exchange(code);
  if (!openid) {
    ctx.throw(502);
  }
  const token = crypto.randomBytes(32).toString('base64url');
  await redis.set(`session:${token}`, JSON.stringify({ openid, session_key, unionid }), 'EX', 604800);
  ctx.body = { token };
});

app.listen(Number(process.env.PORT), '127.0.0.1');
