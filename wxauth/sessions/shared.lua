-- Prepended to login.lua, end.lua, touch.lua, rekey.lua, list.lua and unban.lua.
-- KEYS[1]: the user's hash.  ARGV[1]: microseconds to add to Redis' clock (0 in production).
-- ARGV[2]: absolute life in microseconds, WXAUTH_MAX_TTL. A shorter one holds for the sessions that are there too.
--
-- The fields of the hash. Times are microseconds since 1970, 8 bytes, big-endian.
--   <session id>  idle end (8), login time (8), kind (1), length of the label (2), sealed label, sealed record
--   k, p          the newest and the previous session_key: since (8), fingerprint (4), sealed session_key
--   r             why sessions ended, oldest first, 31 bytes each: end of this entry (8), reason (1), session id (22)
-- The reasons: c, the limit ended it; r, revoked from another device or by the operator; b, a ban.
-- A field whose name is longer than one character is a session.
local HEAD = 19
local ENTRY, MAX_ENTRIES, ENTRY_LIFE = 31, 20, 7 * 86400 * 1000000
-- No setting allows a longer life than a year. A time beyond that, and a day for clocks that differ, is damaged.
local FAR = 366 * 86400 * 1000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + ARGV[1]

local function to_number(text, first)
  local value = 0
  for i = first, first + 7 do value = value * 256 + text:byte(i) end
  return value
end

local function to_bytes(value)
  local text = ''
  for _ = 1, 8 do
    text = string.char(value % 256) .. text
    value = math.floor(value / 256)
  end
  return text
end

-- The idle end and the login time of a session. Nothing if the value is damaged or the session has expired.
local function times(value)
  if #value < HEAD then return end
  local ends, login = to_number(value, 1), to_number(value, 9)
  if ends > now + FAR or login > now + FAR then return end
  ends = math.min(ends, login + ARGV[2])
  if ends > now then return ends, login end
end

-- The live sessions. Removes expired and damaged fields: they must not keep the user from logging in or out.
local function live_sessions()
  local live, fields = {}, redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local id = fields[i]
    if #id > 1 then
      local ends, login = times(fields[i + 1])
      if ends then
        live[#live + 1] = {id = id, ends = ends, login = login}
      else
        redis.call('HDEL', KEYS[1], id)
        -- A check does not look at the login time: a worker may have this session in its cache.
        redis.call('PUBLISH', 'wxa:revoked', id)
      end
    end
  end
  return live
end

-- The entries of `r` that still count, without those of the reason `forgotten`.
local function reasons(forgotten)
  local kept, text = {}, redis.call('HGET', KEYS[1], 'r') or ''
  for i = 1, #text - ENTRY + 1, ENTRY do
    local ends = to_number(text, i)
    if ends > now and ends < now + FAR and text:sub(i + 8, i + 8) ~= forgotten then
      kept[#kept + 1] = {ends = ends, text = text:sub(i, i + ENTRY - 1)}
    end
  end
  return kept
end

-- Writes the newest 20 reasons: beyond that, a phone is told no reason. Lets the hash live as long as the sessions `left`
-- and the reasons; deletes it if none is left.
local function keep(left, kept)
  local last, texts = now, {}
  for i = math.max(#kept - MAX_ENTRIES, 0) + 1, #kept do
    texts[#texts + 1] = kept[i].text
    last = math.max(last, kept[i].ends)
  end
  for _, session in ipairs(left) do last = math.max(last, session.ends) end
  if last == now then
    redis.call('DEL', KEYS[1])
    return
  end
  redis.call('HDEL', KEYS[1], 'r')
  if #texts > 0 then redis.call('HSET', KEYS[1], 'r', table.concat(texts)) end
  if #left == 0 then redis.call('HDEL', KEYS[1], 'k', 'p') end
  redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) / 1000))
end

-- Deletes the sessions `ended`, and tells all workers. Keeps the `reason` of a session that has one, the oldest login
-- first. Returns the ids.
local function finish(ended, left)
  local ids, kept = {}, reasons()
  table.sort(ended, function(a, b) return a.login < b.login end)
  for _, session in ipairs(ended) do
    ids[#ids + 1] = session.id
    redis.call('HDEL', KEYS[1], session.id)
    if session.reason ~= '' and #session.id == ENTRY - 9 then
      local ends = math.min(session.ends, now + ENTRY_LIFE)
      kept[#kept + 1] = {ends = ends, text = to_bytes(ends) .. session.reason .. session.id}
    end
  end
  if #ids > 0 then redis.call('PUBLISH', 'wxa:revoked', table.concat(ids, ' ')) end
  keep(left, kept)
  return ids
end
