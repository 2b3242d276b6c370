'use strict';
// Koa with jsonwebtoken, as in the usual tutorials on WeChat logins: HS256 with the secret as a string.

const Koa = require('koa');
const jwt = require('jsonwebtoken');
const { SECRET, fakeUser } = require('./users');

const app = new Koa();

app.use(async (ctx) => {
  if (ctx.path === '/login') {
    const { openid, unionid } = fakeUser(ctx.query.user);
    ctx.body = { token: jwt.sign({ openid, unionid }, SECRET, { expiresIn: '7d' }) };
    return;
  }
  try {
    const { openid } = jwt.verify(ctx.get('Authorization').replace('Bearer ', ''), SECRET);
    ctx.body = { openid };
  } catch {
    ctx.status = 401;
  }
});

app.listen(Number(process.env.PORT), '127.0.0.1');
