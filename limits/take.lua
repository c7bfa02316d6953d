-- Decide one request: every limit, all charged or none, and count the outcome in the same call.
--
-- KEYS  1 rl of the subject   hash: limit id -> "tat:T" (theoretical arrival time and the emission interval it was
--                             written under, both integer microseconds)
--       2, 3 uc of the month   hashes of usage: the month of ARGV[4], the month of ARGV[6]
--       4 uc of all time
--       5, 6, 7 dn             the same three for denials
--       8.. one per guard
-- ARGV  1 now_us, '' = the server's own TIME (only tests pass a number)
--       2 number of limits   3 metric, '' = count nothing
--       4 day field now      5 us at which that day ends      6 day field after that
--       7 ms to keep a month of counters
--       then per limit: id, T, burst, cost            then per guard: field, expected value
-- Reply {status, now_us, allowed, remaining, retry_us, full_again_us, ... per limit}
--       status 1 = allowed and charged, 0 = denied and nothing charged, -i = guard i did not hold, nothing written.
--       Numbers travel as strings: a Lua number reply would be cut to an integer of doubtful size.
-- Cost  O(limits + guards).

local limits = tonumber(ARGV[2])
local metric = ARGV[3]
local guard_args = 7 + limits * 4
local function text(n) return string.format('%.0f', n) end

for i = 8, #KEYS do
  local at = guard_args + (i - 8) * 2
  if redis.call('HGET', KEYS[i], ARGV[at + 1]) ~= ARGV[at + 2] then
    return {tostring(7 - i), ''}
  end
end

local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end

local states, changed = {}, {}
local all_allow, longest, longest_wait, refill_us = true, nil, -1, 0
for i = 1, limits do
  local at = 7 + (i - 1) * 4
  local id, T, burst, cost = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local full = burst * T
  local base = now
  local stored = redis.call('HGET', KEYS[1], id)
  if stored then
    local colon = string.find(stored, ':', 1, true)
    local tat, old_T = tonumber(string.sub(stored, 1, colon - 1)), tonumber(string.sub(stored, colon + 1))
    if old_T ~= T and tat > now then   -- the limit was changed: keep the units used, not the time they were worth
      tat = now + math.ceil((tat - now) * T / old_T)
    end
    -- The clamp bounds what a clock set back, or a burst made smaller, can cost the user to one full refill.
    base = math.max(now, math.min(tat, now + full))
  end
  local new = base + cost * T
  local wait = new - full - now
  local allowed = wait <= 0
  if cost > burst then wait = math.huge end
  if not allowed then
    all_allow = false
    if wait > longest_wait then longest, longest_wait = id, wait end
  elseif cost > 0 then
    changed[#changed + 1] = id
    changed[#changed + 1] = text(new) .. ':' .. text(T)
    refill_us = math.max(refill_us, new - now)
  end
  states[i] = {id = id, T = T, full = full, base = base, new = new, allowed = allowed, wait = wait}
end

local reply = {all_allow and '1' or '0', text(now)}
for i = 1, limits do
  local s = states[i]
  local at = all_allow and s.new or s.base
  reply[#reply + 1] = s.allowed and '1' or '0'
  reply[#reply + 1] = text(math.floor((now + s.full - at) / s.T))
  reply[#reply + 1] = s.allowed and '0' or (s.wait == math.huge and '-1' or text(s.wait))
  reply[#reply + 1] = text(at - now)
end

if all_allow and #changed > 0 then
  redis.call('HSET', KEYS[1], unpack(changed))
  local keep_ms = math.ceil(refill_us / 1000) + 1   -- never less than the longest refill: forgetting is forgiving
  if redis.call('PTTL', KEYS[1]) < keep_ms then redis.call('PEXPIRE', KEYS[1], keep_ms) end
end

if metric ~= '' then
  local later = now >= tonumber(ARGV[5])
  local month = (all_allow and 2 or 5) + (later and 1 or 0)
  local field = metric .. (all_allow and '.ok' or '.denied.' .. longest)
  redis.call('HINCRBY', KEYS[month], (later and ARGV[6] or ARGV[4]) .. ':' .. field, 1)
  if redis.call('HINCRBY', KEYS[month], '*:' .. field, 1) == 1 then redis.call('PEXPIRE', KEYS[month], ARGV[7]) end
  redis.call('HINCRBY', KEYS[all_allow and 4 or 7], field, 1)
end
return reply
