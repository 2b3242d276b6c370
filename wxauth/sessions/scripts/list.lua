-- Returns the fields of a user's hash, without tickets and without expired and damaged sessions. Writes nothing: it works
-- on a full Redis.
local fields, kept = redis.call('HGETALL', KEYS[1]), {}
local found = sessions_in(fields)
for i = 1, #fields, 2 do
  local session = found[fields[i]]
  if #fields[i] == 1 or (session and not session.is_orphan) then
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = fields[i + 1]
  end
end
return kept
