-- Sends requests in a loop and prints the figures as JSON. The arguments after `--`:
--   checks FILE    a GET with each header line of FILE in turn
--   logins NUMBER  a login of user NUMBER, then of the next one, and so on

local requests, turn, user = {}, 0, nil
local json = { ["Content-Type"] = "application/json" }

function init(args)
  if args[1] == "logins" then
    user = tonumber(args[2])
    return
  end
  for line in io.lines(args[2]) do
    local name, value = line:match("^([^:]+): (.*)$")
    requests[#requests + 1] = wrk.format("GET", nil, { [name] = value })
  end
  if #requests == 0 then
    requests[1] = wrk.format("GET")
  end
end

function request()
  if user then
    user = user + 1
    return wrk.format("POST", nil, json, string.format('{"code":"user-%d"}', user))
  end
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "failed": %d, "p50": %d, "p99": %d, "worst": %d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
