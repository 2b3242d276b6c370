-- Forward auth for deploy/apache.conf, which says where this file goes.
-- After an error in here, Apache answers 500.

local http = require "socket.http"
local ltn12 = require "ltn12"

local WXAUTH = "http://127.0.0.1:8000/"
local PASSED_ON = {"Cache-Control", "WWW-Authenticate", "Retry-After", "X-Content-Type-Options"}
http.TIMEOUT = 2

-- wxauth is down or does not answer: the session can't be checked, so the request does not reach the application.
local UNAVAILABLE = {["content-type"] = "application/problem+json", ["cache-control"] = "no-store",
    ["retry-after"] = "1", ["x-content-type-options"] = "nosniff"}
local PROBLEM = '{"type": "urn:problem-type:wxauth:store_unavailable", "title": "Store unavailable", "status": 503, ' ..
    '"detail": "It is not known whether the session is live. Try again.", "code": "store_unavailable", ' ..
    '"action": "retry", "request_id": "%s"}'

-- Most WSGI servers read X_WX_OpenID as X-WX-OpenID, and X_Forwarded_For as X-Forwarded-For. PHP and CGI do the same
-- with X.WX.OpenID and others. As in nginx, a header name may contain only letters, digits and "-". Applications written
-- for WeChat Cloud Run trust many: X-WX-From-OpenID, X-WX-Source and others.
local function remove_spoofed_headers(r)
    for name in pairs(r:headers_in_table()) do
        if name:find("[^%w-]") or name:lower():find("^x%-wx%-") then r.headers_in[name] = nil end
    end
end

-- The next proxy removes each header that Connection names. The caller could remove ours with it.
local function set_connection(r)
    local connection = (r.headers_in["Connection"] or ""):lower()
    local is_upgrade = connection:find("upgrade") and (r.headers_in["Upgrade"] or ""):lower() == "websocket"
    if not is_upgrade then r.headers_in["Upgrade"] = nil end
    r.headers_in["Connection"] = is_upgrade and "Upgrade" or connection:find("close") and "close" or nil
end

local function ask(authorization)
    local body = {}
    local _, status, headers = http.request{
        url = WXAUTH .. "verify",
        headers = {authorization = authorization},
        sink = ltn12.sink.table(body),
        redirect = false,
    }
    return status, headers, table.concat(body)
end

local function refuse(r, status, headers, body)
    for _, name in ipairs(PASSED_ON) do
        if headers[name:lower()] then r.err_headers_out[name] = headers[name:lower()] end
    end
    r.status = status
    r.content_type = headers["content-type"]
    r:write(body)
    return apache2.DONE
end

function verify(r)
    remove_spoofed_headers(r)
    set_connection(r)
    -- The routes of the mini program. Everything else is checked.
    if r.filename:sub(1, #WXAUTH + 6) == "proxy:" .. WXAUTH then
        -- The limit of wxauth. If wxauth rejected a body while it is being sent, its answer could be lost.
        return (tonumber(r.headers_in["Content-Length"]) or 0) > 16384 and 413 or apache2.OK
    end
    local status, headers, body = ask(r.headers_in["Authorization"])
    if status == 401 or status == 403 or status == 503 then return refuse(r, status, headers, body) end
    if status ~= 204 then return refuse(r, 503, UNAVAILABLE, PROBLEM:format(r.subprocess_env["UNIQUE_ID"])) end
    for _, name in ipairs{"X-WX-AppID", "X-WX-OpenID", "X-WX-UnionID"} do
        r.headers_in[name] = headers[name:lower()]
    end
    -- The application does not get the token. Remove this line if it calls wxauth for the user.
    r.headers_in["Authorization"] = nil
    return apache2.OK
end
