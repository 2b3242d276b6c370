'use strict';
// Koa with ioredis and opaque tokens, for forward auth. It gives the same answers as our /verify.

const crypto = require('node:crypto');
const Koa = require('koa');
const Redis = require('ioredis');
const { fakeUser } = require('./users');

const redis = new Redis(process.env.REDIS_URL);
const app = new Koa();

app.use(async (ctx) => {
  if (ctx.path === '/login') {
    const token = crypto.randomBytes(32).toString('hex');
    await redis.set(`token:${token}`, JSON.stringify(fakeUser(ctx.query.user)), 'EX', 604800);
    ctx.body = { token };
    return;
  }
  const found = await redis.get(`token:${ctx.get('Authorization').replace('Bearer ', '')}`);
  if (found === null) {
    ctx.status = 401;
    return;
  }
  const { appid, openid, unionid } = JSON.parse(found);
  ctx.set('X-WX-AppID', appid);
  ctx.set('X-WX-OpenID', openid);
  ctx.set('X-WX-UnionID', unionid);
  ctx.set('Vary', 'Authorization');
  ctx.set('Cache-Control', 'no-store');
  ctx.set('X-Content-Type-Options', 'nosniff');
  ctx.status = 204;
});

app.listen(Number(process.env.PORT), '127.0.0.1');
