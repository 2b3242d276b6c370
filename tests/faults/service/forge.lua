-- Send tokens of the right shape with a wrong signature over each connection, with a pause after each.
-- Arguments: the seed, and the mean pause in milliseconds.
-- Print how many requests were answered, how many answers were not 401, and how many requests got no answer.
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function random_text(length)
  local characters = {}
  for place = 1, length do
    local at = math.random(#ALPHABET)
    characters[place] = ALPHABET:sub(at, at)
  end
  return table.concat(characters)
end

local only

function setup(thread)
  only = thread
end

function init(arguments)
  math.randomseed(tonumber(arguments[1]))
  pause = tonumber(arguments[2])
  others = 0
end

function delay()
  return math.random(0, 2 * pause)
end

function request()
  return wrk.format("GET", nil, { Authorization = "wxa_" .. random_text(65) .. "." .. random_text(43) })
end

function response(status)
  if status ~= 401 then
    others = others + 1
  end
end

function done(summary)
  local errors = summary.errors
  local unanswered = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("answered %d, others %d, unanswered %d\n", summary.requests, only:get("others"), unanswered))
end
