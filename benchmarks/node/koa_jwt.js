'use strict';
// Koa with jsonwebtoken, as the usual tutorial on WeChat logins has it: HS256, the secret handed over as a string.

const Koa = require('koa');
const jwt = require('jsonwebtoken');
const { SECRET, visitor } = require('./identity');

const app = new Koa();

app.use(async (ctx) => {
  if (ctx.path === '/login') {
    const { openid, unionid } = visitor(ctx.query.user);
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
