-- Exchange a refresh token's counter for the next one, exactly once.
--
-- KEYS  1 s of the session   2 u of the user   3 us of the user
-- ARGV  1 sid   2 counter presented   3 grace ms   4 idle life ms
-- Reply {'ok' or 'again', counter to hand out, ms the session may still idle, opened_ms, roles, ver}
--       again: the immediate predecessor within grace; it gets the same child, and nothing moves
--       {'reused'}  an older counter than grace allows: the session is ended here
--       {'gone'}    no such session, its user is gone or not active, or has ended all that are older than `since`
-- Cost O(1).

local s = redis.call('HMGET', KEYS[1], 'live', 'n', 'at', 'opened', 'until', 'ver')
local u = redis.call('HMGET', KEYS[2], 'status', 'roles', 'ver', 'since')
if s[1] ~= '1' or u[1] ~= 'active' then return {'gone'} end

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local current, presented = tonumber(s[2]), tonumber(ARGV[2])
local left = tonumber(s[5]) - now

local function finish(verdict)
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  return {verdict}
end
if left <= 0 or (tonumber(s[6]) or 0) < (tonumber(u[4] or 0) or math.huge) then return finish('gone') end

local verdict = 'ok'
local idle = math.min(tonumber(ARGV[4]), left)
if presented >= current then
  -- Above current happens when Redis lost its last second of writes: the MAC says we issued that counter.
  current = presented + 1
  redis.call('HSET', KEYS[1], 'n', string.format('%.0f', current), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], idle)
elseif presented == current - 1 and now - tonumber(s[3]) <= tonumber(ARGV[3]) then
  verdict, idle = 'again', redis.call('PTTL', KEYS[1])   -- a second tab, or a reply that was lost
else
  return finish('reused')
end
return {verdict, string.format('%.0f', current), string.format('%.0f', idle), s[4], u[2], u[3]}
