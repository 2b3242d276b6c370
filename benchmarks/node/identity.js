'use strict';
// Made-up users; the twin of ../identity.py.

exports.SECRET = 'a-secret-of-the-benchmarks-0123456789';

exports.visitor = (number) => {
  const digits = String(number).padStart(22, '0');
  return {
    appid: 'wxbenchmark0123456',
    openid: `oBENCH${digits}`,
    unionid: `uBENCH${digits}`,
    session_key: `${digits.slice(1)}A==`,
  };
};
