-- Adds a ticket of a live session from wx.login. Above 5 tickets of this session the oldest goes. Returns 'issued', or
-- 'refused' without such a session.
-- ARGV[3]: name of the field.  ARGV[4]: life in microseconds.  ARGV[5]: id of the session.  ARGV[6]: sealed user.
local MAX_TICKETS = 5
local is_live = false
for _, session in ipairs(live_sessions()) do
  is_live = is_live or (session.id == ARGV[5] and session.kind == 'w')
end
if not is_live then return 'refused' end
local tickets, fields = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if is_ticket(fields[i]) and fields[i] ~= ARGV[3] then
    local ends, parent = ticket(fields[i + 1])
    if parent == ARGV[5] then tickets[#tickets + 1] = {name = fields[i], ends = ends} end
  end
end
table.sort(tickets, function(a, b) return a.ends < b.ends end)
for i = 1, #tickets + 1 - MAX_TICKETS do redis.call('HDEL', KEYS[1], tickets[i].name) end
redis.call('HSET', KEYS[1], ARGV[3], to_bytes(now + ARGV[4]) .. ARGV[5] .. ARGV[6])
return 'issued'
