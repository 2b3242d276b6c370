-- Ends the named sessions, or all but the named. Returns the name of the hash, and the ids of those that were alive.
-- The session_keys go with the last session.
-- ARGV[3]: 'these' or 'others'.  ARGV[4]: reason, or ''.
-- ARGV[5]: id of the caller's own session, which gets no reason, or ''.  ARGV[6...]: ids.
local named, ended, left = {}, {}, {}
for i = 6, #ARGV do named[ARGV[i]] = true end
for _, session in ipairs(live_sessions()) do
  if (named[session.id] or false) == (ARGV[3] == 'these') then
    session.reason = session.id == ARGV[5] and '' or ARGV[4]
    ended[#ended + 1] = session
  else
    left[#left + 1] = session
  end
end
return finish(ended, left)
