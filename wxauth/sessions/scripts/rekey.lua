-- Replaces the session_key of a user who is logged in, and forgets the previous one. Returns 1, or 0 without a session.
-- ARGV[3]: fingerprint and sealed session_key.
if #live_sessions() == 0 then return 0 end
redis.call('HDEL', KEYS[1], 'p')
redis.call('HSET', KEYS[1], 'k', to_bytes(now) .. ARGV[3])
return 1
