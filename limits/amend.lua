-- Correct one allowed decision afterwards: move its count to another outcome, give units back. Once per decision.
--
-- KEYS  1 rl   2 uc of the decision's month   3 uc of all time   4 rf, zset of decisions already amended   5 qt
--       6 ov, where "t:"..name is the us at which an operator reset a limit or quota, "r:"..quota what was forgiven
--       7.. one zset per lease to release
-- ARGV  1 now_us, '' = the server's own TIME   2 decision id   3 now_us of the decision   4 window in us
--       5 day field of the decision   6 metric, '' = counted nothing   7 new outcome, e.g. refused.not_found or failed
--       8-10 how many limits, quotas, leases
--       then 4 per limit: id, cost, its tat after the decision, T of then     3 per quota: id, period, own field ('1' or '0')
--            1 per lease: holder
-- Reply 1 = amended, 0 = was amended before, or is older than the window. Cost O(log amends of the last window).

local call = redis.call
local now = tonumber(ARGV[1])
if not now then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
end
local window = tonumber(ARGV[4])
if now - tonumber(ARGV[3]) > window then return 0 end
call('ZREMRANGEBYSCORE', KEYS[4], '-inf', string.format('(%.0f', now - window))
if call('ZADD', KEYS[4], 'NX', ARGV[3], ARGV[2]) == 0 then return 0 end
call('PEXPIRE', KEYS[4], math.ceil(window / 1000))

if ARGV[6] ~= '' then
  local from, to = ARGV[6] .. '.ok', ARGV[6] .. '.' .. ARGV[7]
  local function move(key, prefix)
    if call('HINCRBY', key, prefix .. from, -1) <= 0 then call('HDEL', key, prefix .. from) end
    call('HINCRBY', key, prefix .. to, 1)
  end
  move(KEYS[2], ARGV[5] .. ':')
  move(KEYS[2], '*:')
  move(KEYS[3], '')
end

local at = 11
local function pair(key, field)   -- the stored "a:b" of a field, as texts
  local stored = call('HGET', key, field)
  if stored then return string.match(stored, '^(.*):(%d+)$') end
end
local function was_reset(name)   -- since the decision: then its units were given back already
  return tonumber(call('HGET', KEYS[6], 't:' .. name) or -1) >= tonumber(ARGV[3])
end
for _ = 1, tonumber(ARGV[8]) do
  local tat, T = pair(KEYS[1], ARGV[at])
  if tat and not was_reset(ARGV[at]) then   -- a limit gone meanwhile has refilled: there is nothing to give back
    -- Of the units charged, time has given some back; only the rest may come back, or more than a burst could pass.
    local cost, left = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]) - now
    local rest = left >= cost * tonumber(ARGV[at + 3]) and cost * T or math.floor(math.max(left, 0) * T / ARGV[at + 3])
    call('HSET', KEYS[1], ARGV[at], string.format('%.0f:%s', tonumber(tat) - rest, T))
  end
  at = at + 4
end
for _ = 1, tonumber(ARGV[9]) do
  local name, of = ARGV[at], ARGV[at + 1]
  local function less(key, field)
    local period, used = pair(key, field)
    if period == of and tonumber(used) > 0 then
      call('HSET', key, field, period .. ':' .. string.format('%.0f', tonumber(used) - 1))
    end
  end
  if ARGV[at + 2] == '1' then less(KEYS[5], name) end
  if was_reset(name) then less(KEYS[6], 'r:' .. name) end   -- what is not counted any more need not be forgiven
  at = at + 3
end
for i = 1, tonumber(ARGV[10]) do
  call('ZREM', KEYS[6 + i], ARGV[at])
  at = at + 1
end
return 1
