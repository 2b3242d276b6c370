-- Tokens of the right shape under nobody's signature, one after another over each connection, with a pause after each.
-- Prints how many were answered, how many of the answers were no 401, and how many got none.
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local PAUSE = 64 -- milliseconds, in the middle

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
  others = 0
end

function delay()
  return math.random(0, 2 * PAUSE)
end

function request()
  return wrk.format("GET", nil, { Authorization = "wxa_" .. random_text(47) .. "." .. random_text(43) })
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
