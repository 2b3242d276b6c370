-- Returns the mark of the user's approvals, or sets this one. KEYS[1]: its key.  ARGV[1]: a new mark.  ARGV[2]: seconds.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('GET', KEYS[1])
