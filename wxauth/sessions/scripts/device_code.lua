-- The life of a device code (RFC 8628). Each step is atomic, and may be sent again after a lost connection.
-- KEYS[1]: the device code's hash.  ARGV[1]: microseconds to add to Redis' clock (0 in production).  ARGV[2]: the step.
-- ARGV[3]: an id of this call, the same when it is sent again.
-- Each step returns a word, and what goes with it. No reply to another command begins with one of these words.
--
-- The fields. Times are microseconds since 1970.
--   code      what is kept of the device_code    client   id of the client that asked
--   ends      its end                            details  sealed, for the phone
--   interval  between two polls                  polled, poll     time and id of the last poll
--   state     approved, denied or used; nothing while no phone has answered
--   answer    id of the call that answered       user     sealed, if approved
--   taken     id of the call that used the code
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + ARGV[1]
-- RFC 8628, 3.5. Of two polls in the right interval the first may take longer on its way: that is not too soon.
local SLOWER, TOLERANCE = 5000000, 200000

local function get(field)
  return redis.call('HGET', KEYS[1], field)
end

local function is_live()
  local ends = get('ends')
  return ends and tonumber(ends) > now
end

local function ok_if(condition)
  return {condition and 'ok' or 'no'}
end

local steps = {}

-- ARGV[4]: what is kept of the device_code.  ARGV[5]: client.  ARGV[6]: life.  ARGV[7]: interval.  ARGV[8]: details.
-- 'no' if another device code has this user_code.
function steps.request()
  if is_live() then return ok_if(get('code') == ARGV[4]) end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'code', ARGV[4], 'client', ARGV[5], 'ends', string.format('%.0f', now + ARGV[6]),
    'interval', ARGV[7], 'details', ARGV[8])
  redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[6] / 1000))
  return {'ok'}
end

-- The details and the rest of the life; 'no' if it is not there or expired.
function steps.show()
  if not is_live() then return {'no'} end
  if get('state') then return {'answered'} end
  return {'ok', get('details'), string.format('%.0f', get('ends') - now)}
end

-- ARGV[4]: approved or denied.  ARGV[5]: the sealed user, or ''. 'no' if it is not there, expired or answered.
function steps.answer()
  if not is_live() then return {'no'} end
  if get('state') then return ok_if(get('answer') == ARGV[3]) end
  redis.call('HSET', KEYS[1], 'state', ARGV[4], 'user', ARGV[5], 'answer', ARGV[3])
  return {'ok'}
end

-- ARGV[4]: what is kept of the device_code.  ARGV[5]: client. The state, and the user if it is approved.
function steps.poll()
  if not get('code') then return {'expired'} end
  if get('code') ~= ARGV[4] or get('client') ~= ARGV[5] or get('state') == 'used' then return {'invalid'} end
  if not is_live() then return {'expired'} end
  if get('poll') ~= ARGV[3] then
    local interval, polled = tonumber(get('interval')), get('polled')
    redis.call('HSET', KEYS[1], 'polled', string.format('%.0f', now), 'poll', ARGV[3])
    if polled and now - polled < interval - TOLERANCE then
      redis.call('HSET', KEYS[1], 'interval', string.format('%.0f', interval + SLOWER))
      return {'slow_down'}
    end
  end
  return {get('state') or 'pending', get('user') or ''}
end

-- Uses an approved code. 'no' if another call has used it.
function steps.take()
  if get('state') == 'approved' then redis.call('HSET', KEYS[1], 'state', 'used', 'taken', ARGV[3]) end
  return ok_if(get('taken') == ARGV[3])
end

return steps[ARGV[2]]()
