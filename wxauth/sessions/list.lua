-- Returns the fields of a user's hash, without expired and damaged sessions. Writes nothing: it works on a full Redis.
local fields, kept = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #fields, 2 do
  if #fields[i] == 1 or times(fields[i + 1]) then
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = fields[i + 1]
  end
end
return kept
