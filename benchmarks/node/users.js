'use strict';
// The fake users of ../contenders/users.py.

exports.APPID = 'wxbenchmark0123456';
exports.SECRET = 'a-secret-of-the-benchmarks-0123456789';

exports.fakeUser = (number) => {
  const digits = String(number).padStart(22, '0');
  return {
    appid: exports.APPID,
    openid: `oBENCH${digits}`,
    unionid: `uBENCH${digits}`,
    session_key: `${digits.slice(1)}A==`,
  };
};
