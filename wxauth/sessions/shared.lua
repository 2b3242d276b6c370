-- Prepended to login.lua, end.lua, touch.lua, rekey.lua and list.lua.
-- KEYS[1]: the user's hash.  ARGV[1]: microseconds to add to Redis' clock (0 in production).
-- ARGV[2]: absolute life in microseconds, WXAUTH_MAX_TTL. A shorter one holds for the sessions that are there too.
--
-- The fields of the hash. Times are microseconds since 1970, 8 bytes, big-endian.
--   <session id>  idle end (8), login time (8), kind (1), length of the label (2), sealed label, sealed record
--   k, p          the newest and the previous session_key: since (8), fingerprint (4), sealed session_key
--   r             reserved for the reasons why sessions ended
-- A field whose name is longer than one character is a session.
local HEAD = 19
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

-- Deletes the sessions `ended`, tells all workers, and lets the hash live as long as the sessions `left`.
local function finish(ended, left)
  for _, id in ipairs(ended) do redis.call('HDEL', KEYS[1], id) end
  if #ended > 0 then redis.call('PUBLISH', 'wxa:revoked', table.concat(ended, ' ')) end
  local last = now
  for _, session in ipairs(left) do last = math.max(last, session.ends) end
  if last > now then
    redis.call('PEXPIRE', KEYS[1], math.ceil((last - now) / 1000))
  else
    redis.call('DEL', KEYS[1])
  end
  return ended
end
