-- Forward auth for deploy/haproxy.cfg, which says where this file goes.
-- A failure leaves the variable unset, and haproxy.cfg refuses a request without it: HAProxy goes on after a Lua error.

local PASSED_ON = {"content-type", "cache-control", "www-authenticate", "retry-after", "x-content-type-options"}

core.register_action("verify", {"http-req"}, function(txn, url)
    -- All values: wxauth rejects two.
    local headers = {authorization = txn.http:req_get_headers()["authorization"]}
    local answer = core.httpclient():get{url = url, headers = headers, timeout = 3000}
    if answer.status == 204 then
        for _, name in ipairs{"appid", "openid", "unionid"} do
            txn:set_var("txn.wx_" .. name, answer.headers["x-wx-" .. name][0])
        end
    elseif answer.status == 401 or answer.status == 403 or answer.status == 503 then
        local reply = txn:reply{status = answer.status, body = answer.body}
        for _, name in ipairs(PASSED_ON) do
            for _, value in pairs(answer.headers[name] or {}) do
                reply:add_header(name, value)
            end
        end
        txn:done(reply)
    end
end, 1)
