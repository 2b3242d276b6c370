-- Returns the fields of a user's hash, without expired and damaged sessions.
live_sessions()
return redis.call('HGETALL', KEYS[1])
