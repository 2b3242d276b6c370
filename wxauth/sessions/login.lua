-- Adds a session. Ends the replaced session, and the oldest ones above the limit. Returns the ids of the ended sessions.
-- ARGV[3]: limit.  ARGV[4]: id.  ARGV[5]: idle life in microseconds.  ARGV[6]: login time in microseconds.
-- ARGV[7]: the rest of the value.  ARGV[8]: the session_key's value.  ARGV[9]: id of the replaced session, or ''.
local limit, id, ends, login = tonumber(ARGV[3]), ARGV[4], now + ARGV[5], tonumber(ARGV[6])
local live, others, ended = live_sessions(), {}, {}
-- The session_keys of expired sessions go with them.
if #live == 0 then redis.call('DEL', KEYS[1]) end
for _, session in ipairs(live) do
  if session.id == ARGV[9] then
    ended[#ended + 1] = session.id
  elseif session.id ~= id then
    others[#others + 1] = session
    -- The order of login times is the order of logins, also where a worker's clock is wrong.
    login = math.max(login, session.login + 1)
  end
end
table.sort(others, function(a, b) return a.login < b.login end)
while #others >= limit do ended[#ended + 1] = table.remove(others, 1).id end

-- A new session_key has another fingerprint. The one before it stays for data that is on its way.
local known = redis.call('HGET', KEYS[1], 'k')
if not known or known:sub(5, 8) ~= ARGV[8]:sub(5, 8) then
  if known then redis.call('HSET', KEYS[1], 'p', known) end
  redis.call('HSET', KEYS[1], 'k', ARGV[8])
end
redis.call('HSET', KEYS[1], id, to_bytes(ends) .. to_bytes(login) .. ARGV[7])
others[#others + 1] = {ends = ends}
return finish(ended, others)
