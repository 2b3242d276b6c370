-- Prepended to the other scripts of a user's hash.
-- KEYS[1]: the user's hash.  ARGV[1]: microseconds to add to Redis' clock (0 in production).
-- ARGV[2]: absolute life in microseconds, WXAUTH_MAX_TTL. A shorter one holds for the sessions that are there too.
--
-- The fields of the hash. Times are microseconds since 1970, 8 bytes, big-endian.
--   <session id>  idle end (8), login time (8), kind (1), length of the label (2), for a session by ticket the id of its
--                 parent (22), sealed label, sealed record
--   t:<id>        a ticket: end (8), id of the session that asked for it (22), sealed user
--   k, p          the newest and the previous session_key: since (8), fingerprint (4), sealed session_key
--   r             why sessions ended, oldest first, 31 bytes each: end of this entry (8), reason (1), session id (22)
-- The kinds: w, from wx.login; s, by scan; t, by ticket. A session by ticket ends with its parent.
-- The reasons: c, the limit ended it; r, revoked from another device or by the operator; b, a ban.
-- Every other field whose name is longer than one character is a session.
local HEAD, ID = 19, 22
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

-- The kind of a session, and the id of its parent if it is one by ticket.
local function origin(value)
  local kind = value:sub(17, 17)
  return kind, kind == 't' and value:sub(HEAD + 1, HEAD + ID) or nil
end

-- When a ticket ends, and the session that asked for it. Nothing if it is damaged or has ended.
local function ticket(value)
  if #value < 8 + ID then return end
  local ends = to_number(value, 1)
  if ends > now and ends < now + FAR then return ends, value:sub(9, 8 + ID) end
end

local function is_ticket(name)
  return name:sub(1, 2) == 't:'
end

-- The live sessions of some fields, by id.
local function sessions_in(fields)
  local found = {}
  for i = 1, #fields, 2 do
    local id, value = fields[i], fields[i + 1]
    local ends, login = times(value)
    if #id > 1 and ends and not is_ticket(id) then
      local kind, parent = origin(value)
      found[id] = {id = id, ends = ends, login = login, kind = kind, parent = parent}
    end
  end
  for id, session in pairs(found) do
    if session.parent and not found[session.parent] then session.is_orphan = true end
  end
  return found
end

-- The live sessions as a list. Removes all other fields of sessions and tickets: expired and damaged ones must not keep
-- the user from logging in or out.
local function live_sessions()
  local live, fields = {}, redis.call('HGETALL', KEYS[1])
  local found = sessions_in(fields)
  for i = 1, #fields, 2 do
    local id = fields[i]
    local session = found[id]
    if session and not session.is_orphan then
      live[#live + 1] = session
    elseif is_ticket(id) then
      local _, parent = ticket(fields[i + 1])
      if not found[parent] then redis.call('HDEL', KEYS[1], id) end
    elseif #id > 1 then
      redis.call('HDEL', KEYS[1], id)
      -- A check does not look at the login time: a worker may have this session in its cache.
      redis.call('PUBLISH', 'wxa:revoked', id)
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

-- Moves the sessions by ticket whose parents are in `ended` there too, with the reason of the parent. If the parent has no
-- reason, because its holder ended it, neither have its sessions by ticket. Returns the others.
local function without_children(ended, left)
  local others, why = {}, {}
  for _, session in ipairs(ended) do why[session.id] = session.reason end
  for _, session in ipairs(ended) do
    if why[session.parent] == '' then session.reason = '' end
  end
  for _, session in ipairs(left) do
    session.reason = session.parent and why[session.parent]
    local list = session.reason and ended or others
    list[#list + 1] = session
  end
  return others
end

-- Deletes the sessions `ended`, and those by ticket that they are the parents of. Tells all workers. Keeps the `reason` of
-- a session that has one, the oldest login first. Returns the name of the hash, with which no reply to another command
-- begins, and the ids.
local function finish(ended, left)
  local ids, kept = {}, reasons()
  left = without_children(ended, left)
  table.sort(ended, function(a, b) return a.login < b.login end)
  for _, session in ipairs(ended) do
    ids[#ids + 1] = session.id
    redis.call('HDEL', KEYS[1], session.id)
    if session.reason ~= '' and #session.id == ID then
      local ends = math.min(session.ends, now + ENTRY_LIFE)
      kept[#kept + 1] = {ends = ends, text = to_bytes(ends) .. session.reason .. session.id}
    end
  end
  if #ids > 0 then redis.call('PUBLISH', 'wxa:revoked', table.concat(ids, ' ')) end
  keep(left, kept)
  table.insert(ids, 1, KEYS[1])
  return ids
end
