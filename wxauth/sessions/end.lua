-- Ends the named sessions, or all but the named. Returns the ids of those that were alive.
-- The session_keys go with the last session.
-- ARGV[3]: 'these' or 'others'.  ARGV[4...]: ids.
local named, ended, left = {}, {}, {}
for i = 4, #ARGV do named[ARGV[i]] = true end
for _, session in ipairs(live_sessions()) do
  if (named[session.id] or false) == (ARGV[3] == 'these') then
    ended[#ended + 1] = session.id
  else
    left[#left + 1] = session
  end
end
return finish(ended, left)
