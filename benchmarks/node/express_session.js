'use strict';
// express-session with connect-redis, with the options that its README recommends.

const express = require('express');
const session = require('express-session');
const { RedisStore } = require('connect-redis');
const { createClient } = require('redis');
const { SECRET, fakeUser } = require('./users');

async function main() {
  const client = createClient({ url: process.env.REDIS_URL });
  await client.connect();
  const app = express();
  app.use(session({
    store: new RedisStore({ client }),
    resave: false,
    saveUninitialized: false,
    secret: SECRET,
    cookie: { maxAge: 604800000 },
  }));
  app.post('/login', (req, res) => {
    Object.assign(req.session, fakeUser(req.query.user));
    res.json({});
  });
  app.get('/me', (req, res) => {
    if (!req.session.openid) {
      res.status(401).end();
      return;
    }
    res.json({ openid: req.session.openid });
  });
  app.listen(Number(process.env.PORT), '127.0.0.1');
}

main();
