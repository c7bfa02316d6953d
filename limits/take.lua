-- Decide one request: every limit, quota and lease, all charged or none, and count the outcome in the same call.
--
-- KEYS  1 rl   hash: limit -> "tat:T" (theoretical arrival time, and the emission interval it was written under; us)
--       2-4 uc hashes of usage: the month of ARGV[7], the month of ARGV[9], all time      5-7 dn  the same for denials
--       8 ov   hash of what an operator set: limit -> "until:T:burst:...", quota -> "until:amount:...",
--              "*" -> "until:..." (a block), "r:"..quota -> "period:used" (forgiven in that period)
--       9 qt   hash, for quotas whose periods are not the days or months of uc: quota -> "period:used"; of metered ones
--              counter:period -> used, which is written elsewhere
--       10..   one hash per guard, then one zset per lease (holder -> us at which its lease ends)
-- ARGV  1 now_us, '' = the server's own TIME (only tests pass a number)
--       2-5 how many limits, quotas, leases, guards        6 metric, '' = count nothing
--       7 day field now   8 us at which that day ends   9 day field after that   10 ms to keep a month of counters
--       then 5 per limit: id, T, burst, cost, shadow ('1' = evaluated and counted, never decides)
--           10 per quota: id, amount, cost (0: only look, 1, or -1: metered, one must be left and none is taken), shadow,
--                         kind (day, month: the counter itself; own, metered: qt), counter,
--                         period now, us at which it ends, period after that, us at which that one ends
--            4 per lease: id, how many at once, holder ('' = only look), us it lasts
--            2 per guard: field, expected value
-- Reply {status, now_us, blocked until us or 0,
--        per limit {us until full again, retry_us: 0 = allowed, -1 = never},
--        per quota {allowed, used, amount, ends_us},   per lease {allowed (2: held already), held, retry_us},
--        per limit with an override in force {its position, T, burst, its rate as it was written}}, flat, otherwise integers
--       status 1 = allowed and charged, 0 = denied and nothing charged, -i = guard i did not hold, nothing written
-- Cost  O(limits + quotas + leases + guards), plus O(log) of a lease's holders. What it is made of: each call into Redis
--       0.5 us, each text of a number 0.3 us, each small table 0.3 us. So limits are read in one HMGET, and the reply is
--       built of numbers while judging.

local call, abs, max, min, floor, ceil = redis.call, math.abs, math.max, math.min, math.floor, math.ceil
local format, match = string.format, string.match
local n_limits, n_quotas, n_leases = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local n_guards, metric = tonumber(ARGV[5]), ARGV[6]
local quotas_at = 10 + n_limits * 5
local leases_at = quotas_at + n_quotas * 10
local guards_at = leases_at + n_leases * 4

for i = 1, n_guards do
  local at = guards_at + i * 2 - 2
  if call('HGET', KEYS[9 + i], ARGV[at + 1]) ~= ARGV[at + 2] then return {-i} end
end

local now = tonumber(ARGV[1])
if not now then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
end
local later = now >= tonumber(ARGV[8])
local month = later and 1 or 0

local function text(n) return format('%.0f', n) end   -- what Lua does by itself rounds to 14 digits
local function split(s)   -- "a:b" as a text and a number
  local a, b = match(s, '^(.*):(%d+)$')
  return a, tonumber(b)
end
local function keep(key, us, expires)   -- a key lives as long as the longest-lived of its fields: forgetting is forgiving
  local ms = ceil(us / 1000) + 1
  if expires then   -- it is known to have an expiry; GT takes a key without one for everlasting
    call('PEXPIRE', key, ms, 'GT')
  elseif call('PTTL', key) < ms then
    call('PEXPIRE', key, ms)
  end
end

local ids, stored = {}, nil
for i = 1, n_limits do ids[i] = ARGV[i * 5 + 6] end
if n_limits > 0 then stored = call('HMGET', KEYS[1], unpack(ids)) end
local set = {}
if call('EXISTS', KEYS[8]) == 1 then   -- hardly anybody has overrides
  local names = {'*', unpack(ids)}
  for i = 1, n_quotas do
    local id = ARGV[quotas_at + i * 10 - 9]
    names[#names + 1] = id
    names[#names + 1] = 'r:' .. id
  end
  set = call('HMGET', KEYS[8], unpack(names))
end
local function override(i)   -- until when, and the numbers an operator set, as texts; nothing once it has ended
  if not set[i] then return end
  local till, a, b = match(set[i], '^(%d+):?(%d*):?(%d*)')
  if now < tonumber(till) then return tonumber(till), a, b end
end

local allow, longest, longest_wait, would_deny = true, nil, -1, {}
local function object(id, shadow, wait)
  if shadow then
    would_deny[#would_deny + 1] = '.would_deny.' .. id
  else
    allow = false
    if wait > longest_wait then longest, longest_wait = id, wait end
  end
end

local blocked = override(1) or 0
if blocked > 0 then object('block', false, blocked - now) end

local reply, n = {1, now, blocked}, 3
local costs, intervals, others = {}, {}, {}   -- what each limit is to be charged; its T, a text; overrides in force
local known = false   -- whether any of the limits is stored, so that their key exists
for i = 1, n_limits do
  local at = i * 5 + 5
  local T, burst, cost = ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local till, set_T, set_burst = override(1 + i)
  if till then
    T, burst = set_T, tonumber(set_burst)
    local rate = match(set[1 + i], '"rate": "([^"]*)"') or ''   -- quotes within a reason are escaped: they do not match
    others[#others + 1], others[#others + 2], others[#others + 3], others[#others + 4] = i, tonumber(T), burst, rate
  end
  intervals[i] = T
  local used, old_T = 0, T   -- used: us until this limit is full again
  if stored[i] then
    local tat
    known = true
    tat, old_T = match(stored[i], '(%d+):(%d+)')
    used = max(tat - now, 0)
  end
  local changed = old_T ~= T
  T = tonumber(T)
  if changed then   -- keep the units used, not the time they were worth; whole units apart, so that they stay exact
    local units = floor(used / old_T)
    used = units * T + ceil((used - units * old_T) * T / old_T)
  end
  -- More than a burst can be used: the clock was set back, or the burst made smaller. As a denial writes nothing, calling
  -- it one burst would change no answer; it would only make the reported wait too short.
  local wait = used + cost * T - burst * T
  local allowed = wait <= 0 or cost == 0
  if cost > burst then wait = math.huge end
  if not allowed then object(ids[i], ARGV[at + 5] == '1', wait) end
  costs[i] = allowed and cost or 0
  reply[n + 1], reply[n + 2] = used, allowed and 0 or cost > burst and -1 or wait
  n = n + 2
end

local quotas = {}
for i = 1, n_quotas do
  local at = quotas_at + i * 10 - 10
  local id, amount, cost, kind = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 5]
  local period, ends = ARGV[at + 7], tonumber(ARGV[at + 8])
  if now >= ends then period, ends = ARGV[at + 9], tonumber(ARGV[at + 10]) end
  local till, set_amount = override(n_limits + i * 2)
  if till then amount = tonumber(set_amount) end
  local counted, forgiven = 0, 0
  if kind == 'own' then
    local field = call('HGET', KEYS[9], id)
    if field then
      local of, count = split(field)
      if of == period then counted = count end
    end
  elseif kind == 'metered' then
    counted = tonumber(call('HGET', KEYS[9], ARGV[at + 6] .. ':' .. period) or 0)
  else
    local day = kind == 'month' and '*' or ARGV[later and 9 or 7]
    counted = tonumber(call('HGET', KEYS[2 + month], day .. ':' .. ARGV[at + 6] .. '.ok') or 0)
  end
  local reset = set[n_limits + i * 2 + 1]
  if reset then
    local of, count = split(reset)
    if of == period then forgiven = count end
  end
  local used = max(counted - forgiven, 0)
  local allowed = used + abs(cost) <= amount or cost == 0
  cost = max(cost, 0)
  if not allowed then object(id, ARGV[at + 4] == '1', ends - now) end
  local field = kind == 'own' and period .. ':' .. text(counted + cost)
  quotas[i] = {id = id, at = n, cost = allowed and cost or 0, field = field, ends = ends}
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = allowed and 1 or 0, used, amount, ends
  n = n + 4
end

local leases = {}
for i = 1, n_leases do
  local at, key = leases_at + i * 4 - 4, KEYS[9 + n_guards + i]
  local most, holder = tonumber(ARGV[at + 2]), ARGV[at + 3]
  local held = call('ZCOUNT', key, '(' .. text(now), '+inf')
  local mine = holder ~= '' and tonumber(call('ZSCORE', key, holder) or 0) > now   -- holds it already, and goes on
  local allowed, wait = held < most or holder == '' or mine, 0
  if not allowed then
    wait = tonumber(call('ZRANGEBYSCORE', key, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]) - now
    object(ARGV[at + 1], false, wait)
  end
  leases[i] = {key = key, at = n, holder = mine and '' or holder, lasts = tonumber(ARGV[at + 4])}
  reply[n + 1], reply[n + 2], reply[n + 3] = mine and 2 or allowed and 1 or 0, held, wait
  n = n + 3
end

-- Everything has been read and judged; from here on everything is written.
if not allow then
  reply[1] = 0
else
  local tats, refill_us = {}, 0
  for i = 1, n_limits do
    local cost = costs[i]
    if cost > 0 then
      local used = reply[i * 2 + 2] + cost * intervals[i]
      reply[i * 2 + 2] = used
      tats[#tats + 1] = ids[i]
      tats[#tats + 1] = format('%.0f:%s', now + used, intervals[i])
      if used > refill_us then refill_us = used end
    end
  end
  if refill_us > 0 then
    call('HSET', KEYS[1], unpack(tats))
    keep(KEYS[1], refill_us, known)
  end
  for _, q in ipairs(quotas) do
    reply[q.at + 2] = reply[q.at + 2] + q.cost
    if q.field and q.cost > 0 then
      call('HSET', KEYS[9], q.id, q.field)
      keep(KEYS[9], q.ends - now)
    end
  end
  for _, l in ipairs(leases) do
    if l.holder ~= '' then
      reply[l.at + 2] = reply[l.at + 2] + 1
      call('ZREMRANGEBYSCORE', l.key, '-inf', text(now))
      call('ZADD', l.key, text(now + l.lasts), l.holder)
      keep(l.key, l.lasts)
    end
  end
end

if metric ~= '' then
  local day = ARGV[later and 9 or 7]
  local function count(first, outcome)   -- first: position of the month's key, uc or dn
    local key, field = KEYS[first + month], metric .. outcome
    call('HINCRBY', key, day .. ':' .. field, 1)
    if call('HINCRBY', key, '*:' .. field, 1) == 1 then call('PEXPIRE', key, ARGV[10]) end
    call('HINCRBY', KEYS[first + 2], field, 1)
  end
  if allow then
    count(2, '.ok')
    for _, outcome in ipairs(would_deny) do count(5, outcome) end
  else
    count(5, '.denied.' .. longest)
  end
end

for _, word in ipairs(others) do
  n = n + 1
  reply[n] = word
end
return reply
