-- Adds a session. Ends the replaced session, and the oldest ones above the limit. Returns the ids of the ended.
-- ARGV[3]: limit.  ARGV[4]: id.  ARGV[5]: idle life in microseconds.  ARGV[6]: login time in microseconds.
-- ARGV[7]: the rest of the value.  ARGV[8]: fingerprint and sealed session_key.
-- ARGV[9]: id of the replaced session, or ''.
local limit, id, ends, login = tonumber(ARGV[3]), ARGV[4], now + ARGV[5], tonumber(ARGV[6])
local live, others, ended = live_sessions(), {}, {}
-- The session_keys of expired sessions go with them.
if #live == 0 then redis.call('HDEL', KEYS[1], 'k', 'p') end
for _, session in ipairs(live) do
  if session.id == ARGV[9] then
    session.reason = ''
    ended[#ended + 1] = session
  -- The own id is there if the script was sent again after a lost connection.
  elseif session.id ~= id then
    others[#others + 1] = session
    -- The order of login times is the order of logins, also where a worker's clock is wrong.
    login = math.max(login, session.login + 1)
  end
end
table.sort(others, function(a, b) return a.login < b.login end)
local left = {{ends = ends}}
for i, session in ipairs(others) do
  if i <= #others + 1 - limit then
    session.reason = 'c'
    ended[#ended + 1] = session
  else
    left[#left + 1] = session
  end
end

-- A new session_key has another fingerprint. The one before it stays for data that is on its way.
local known, since = redis.call('HGET', KEYS[1], 'k'), to_bytes(now)
if known and known:sub(9, 12) == ARGV[8]:sub(1, 4) then
  since = known:sub(1, 8)
elseif known then
  redis.call('HSET', KEYS[1], 'p', known)
end
redis.call('HSET', KEYS[1], 'k', since .. ARGV[8], id, to_bytes(ends) .. to_bytes(login) .. ARGV[7])
return finish(ended, left)
