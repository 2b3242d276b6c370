-- Moves the idle end of a live session, or only reads it. Returns the idle end in microseconds, 0 if there is none.
-- ARGV[3]: id.  ARGV[4]: idle life in microseconds, or '' to read only.  ARGV[5]: absolute end in microseconds.
local value = redis.call('HGET', KEYS[1], ARGV[3])
local ends = value and times(value)
if ends then
  local _, parent = origin(value)
  local found = parent and redis.call('HGET', KEYS[1], parent)
  if parent and not (found and times(found)) then ends = nil end
end
if not ends or tonumber(ARGV[5]) <= now then
  -- The next check finds nothing, and needs no second command. The session_keys go with the last session.
  if value then
    redis.call('HDEL', KEYS[1], ARGV[3])
    keep(live_sessions(), reasons())
  end
  return 0
end
if ARGV[4] ~= '' then
  ends = math.min(now + ARGV[4], tonumber(ARGV[5]))
  redis.call('HSET', KEYS[1], ARGV[3], to_bytes(ends) .. value:sub(9))
  local left = math.ceil((ends - now) / 1000)
  if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], left) end
end
return ends
