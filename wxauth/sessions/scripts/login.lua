-- Adds a session. Ends the replaced session, and the oldest ones of its kind above the limit. Returns the name of the
-- hash and the ids of the ended, or 'refused' if the ticket is not good: no reply to another command is this text.
-- ARGV[3]: limit.  ARGV[4]: id.  ARGV[5]: idle life in microseconds.  ARGV[6]: login time in microseconds.
-- ARGV[7]: the rest of the value.  ARGV[8]: fingerprint and sealed session_key, or '' if the login brings none.
-- ARGV[9]: id of the replaced session, or ''.  ARGV[10]: kind.  ARGV[11]: id of the ticket, or ''.
-- ARGV[12]: id of the parent of a session by ticket, or ''.
local limit, id, ends, login = tonumber(ARGV[3]), ARGV[4], now + ARGV[5], tonumber(ARGV[6])
local parent = ARGV[12] ~= '' and ARGV[12] or nil
local live, others, left, ended, is_there, has_parent = live_sessions(), {}, {{ends = ends}}, {}, false, false
for _, session in ipairs(live) do
  has_parent = has_parent or (session.id == parent and session.kind == 'w')
  if session.id == id then
    -- The script was sent again after a lost connection.
    is_there = true
  elseif session.id == ARGV[9] then
    session.reason = ''
    ended[#ended + 1] = session
  elseif session.kind == ARGV[10] and session.parent == parent then
    others[#others + 1] = session
  else
    left[#left + 1] = session
  end
  -- The order of login times is the order of logins, also where a worker's clock is wrong.
  if session.id ~= id and session.id ~= ARGV[9] then login = math.max(login, session.login + 1) end
end

if ARGV[11] ~= '' and not is_there then
  local value = redis.call('HGET', KEYS[1], ARGV[11])
  if not (has_parent and value and ticket(value)) then return 'refused' end
  redis.call('HDEL', KEYS[1], ARGV[11])
end

-- The session_keys of expired sessions go with them.
if #live == 0 then redis.call('HDEL', KEYS[1], 'k', 'p') end
table.sort(others, function(a, b) return a.login < b.login end)
for i, session in ipairs(others) do
  local list = left
  if i <= #others + 1 - limit then
    session.reason = 'c'
    list = ended
  end
  list[#list + 1] = session
end

if ARGV[8] ~= '' then
  -- A new session_key has another fingerprint. The one before it stays for data that is on its way.
  local known, since = redis.call('HGET', KEYS[1], 'k'), to_bytes(now)
  if known and known:sub(9, 12) == ARGV[8]:sub(1, 4) then
    since = known:sub(1, 8)
  elseif known then
    redis.call('HSET', KEYS[1], 'p', known)
  end
  redis.call('HSET', KEYS[1], 'k', since .. ARGV[8])
end
redis.call('HSET', KEYS[1], id, to_bytes(ends) .. to_bytes(login) .. ARGV[7])
return finish(ended, left)
