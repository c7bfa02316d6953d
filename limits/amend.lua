-- Correct one allowed decision afterwards: move its count to another outcome, give units back. Once per decision.
--
-- KEYS  1 rl of the subject   2 uc of the decision's month   3 uc of all time   4 rf: decisions already amended (zset)
-- ARGV  1 now_us, '' = the server's own TIME   2 decision id   3 now_us of the decision   4 window in us
--       5 day field of the decision   6 metric, '' = counted nothing   7 new outcome, e.g. refused.not_found or failed
--       then per refunded limit: id, cost
-- Reply 1 = amended, 0 = was amended before, or is older than the window. Cost O(log amends of the last window).

local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
local window = tonumber(ARGV[4])
if now - tonumber(ARGV[3]) > window then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', string.format('(%.0f', now - window))
if redis.call('ZADD', KEYS[4], 'NX', ARGV[3], ARGV[2]) == 0 then return 0 end
redis.call('PEXPIRE', KEYS[4], math.ceil(window / 1000))

if ARGV[6] ~= '' then
  local from, to = ARGV[6] .. '.ok', ARGV[6] .. '.' .. ARGV[7]
  local function move(key, prefix)
    if redis.call('HINCRBY', key, prefix .. from, -1) <= 0 then redis.call('HDEL', key, prefix .. from) end
    redis.call('HINCRBY', key, prefix .. to, 1)
  end
  move(KEYS[2], ARGV[5] .. ':')
  move(KEYS[2], '*:')
  move(KEYS[3], '')
end

for i = 8, #ARGV, 2 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  if stored then   -- a limit gone meanwhile has refilled: there is nothing to give back
    local colon = string.find(stored, ':', 1, true)
    local tat, T = tonumber(string.sub(stored, 1, colon - 1)), tonumber(string.sub(stored, colon + 1))
    local back = math.max(tat - tonumber(ARGV[i + 1]) * T, 0)
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f:%.0f', back, T))
  end
end
return 1
