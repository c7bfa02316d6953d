-- Decide one request: every limit, quota and lease, all charged or none, and count the outcome in the same call.
--
-- KEYS  1 rl   hash: limit -> "tat:T" (theoretical arrival time, and the emission interval it was written under; us)
--       2-4 uc hashes of usage: the month of ARGV[7], the month of ARGV[9], all time      5-7 dn  the same for denials
--       8 ov   hash of what an operator set: limit -> "until:T:burst:...", quota -> "until:amount:...",
--              "*" -> "until:..." (a block), "r:"..quota -> "period:used" (forgiven in that period)
--       9 qt   hash: quota -> "period:used", for quotas whose periods are not UTC days or months
--       10..   one hash per guard, then one zset per lease (holder -> us at which its lease ends)
-- ARGV  1 now_us, '' = the server's own TIME (only tests pass a number)
--       2-5 how many limits, quotas, leases, guards        6 metric, '' = count nothing
--       7 day field now   8 us at which that day ends   9 day field after that   10 ms to keep a month of counters
--       then 5 per limit: id, T, burst, cost, shadow ('1' = evaluated and counted, never decides)
--           10 per quota: id, amount, cost (0 or 1), shadow, kind (day, month: the counter itself; own: qt), counter,
--                         period now, us at which it ends, period after that, us at which that one ends
--            4 per lease: id, how many at once, holder ('' = only look), us it lasts
--            2 per guard: field, expected value
-- Reply {status, now_us, blocked until us or 0,
--        per limit {allowed, remaining, retry_us or -1 = never, full_again_us, T, burst},
--        per quota {allowed, used, amount, ends_us},   per lease {allowed, held, retry_us}}, flat, numbers as strings
--       status 1 = allowed and charged, 0 = denied and nothing charged, -i = guard i did not hold, nothing written
-- Cost  O(limits + quotas + leases + guards), plus O(log) of a lease's holders.

local n_limits, n_quotas, n_leases = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local n_guards, metric = tonumber(ARGV[5]), ARGV[6]
local quotas_at = 10 + n_limits * 5
local leases_at = quotas_at + n_quotas * 10
local guards_at = leases_at + n_leases * 4
local call, max, min = redis.call, math.max, math.min
local function text(n) return string.format('%.0f', n) end
local function pair(s)   -- "a:b" as two numbers or a text and a number
  local colon = string.find(s, ':', 1, true)
  return string.sub(s, 1, colon - 1), tonumber(string.sub(s, colon + 1))
end

for i = 1, n_guards do
  local at = guards_at + (i - 1) * 2
  if call('HGET', KEYS[9 + i], ARGV[at + 1]) ~= ARGV[at + 2] then return {text(-i)} end
end

local now = tonumber(ARGV[1])
if not now then
  local t = call('TIME')
  now = t[1] * 1000000 + t[2]
end
local later = now >= tonumber(ARGV[8])
local month = later and 1 or 0

local names = {'*'}
for i = 1, n_limits do names[#names + 1] = ARGV[6 + i * 5] end
for i = 1, n_quotas do
  local id = ARGV[quotas_at + i * 10 - 9]
  names[#names + 1] = id
  names[#names + 1] = 'r:' .. id
end
local set = call('HMGET', KEYS[8], unpack(names))
local function override(i)   -- the numbers an operator set, while they last
  if not set[i] then return end
  local till, a, b = string.match(set[i], '^(%d+):?(%d*):?(%d*)')
  if now < tonumber(till) then return tonumber(till), tonumber(a), tonumber(b) end
end

local allow, longest, longest_wait, would_deny = true, '', -1, {}
local function judge(id, allowed, shadow, wait)
  if allowed then return end
  if shadow then
    would_deny[#would_deny + 1] = '.would_deny.' .. id
  else
    allow = false
    if wait > longest_wait then longest, longest_wait = id, wait end
  end
end

local blocked = override(1) or 0
if blocked > 0 then judge('block', false, false, blocked - now) end

local limits, refill_us = {}, 0
for i = 1, n_limits do
  local at = 10 + (i - 1) * 5
  local id, T, burst, cost = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local till, set_T, set_burst = override(1 + i)
  if till then T, burst = set_T, set_burst end
  local full, base = burst * T, now
  local stored = call('HGET', KEYS[1], id)
  if stored then
    local tat, old_T = pair(stored)
    tat = tonumber(tat)
    -- The limit was changed: keep the units used, not the time they were worth.
    if old_T ~= T and tat > now then tat = now + math.ceil((tat - now) * T / old_T) end
    -- The clamp bounds what a clock set back, or a burst made smaller, can cost to one full refill.
    base = max(now, min(tat, now + full))
  end
  local new = base + cost * T
  local wait = new - full - now
  local allowed = wait <= 0
  if cost > burst then wait = math.huge end
  judge(id, allowed, ARGV[at + 5] == '1', wait)
  limits[i] = {id = id, T = T, burst = burst, cost = cost, full = full, base = base, new = new, ok = allowed, wait = wait}
end

local quotas = {}
for i = 1, n_quotas do
  local at = quotas_at + (i - 1) * 10
  local id, amount, cost, kind = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 5]
  local next_one = kind ~= 'own' and later or now >= tonumber(ARGV[at + 8])
  local period, ends = ARGV[at + (next_one and 9 or 7)], tonumber(ARGV[at + (next_one and 10 or 8)])
  local till, set_amount = override(n_limits + i * 2)
  if till then amount = set_amount end
  local used = 0
  if kind == 'own' then
    local stored = call('HGET', KEYS[9], id)
    if stored then
      local of, count = pair(stored)
      if of == period then used = count end
    end
  else
    local day = kind == 'month' and '*' or (later and ARGV[9] or ARGV[7])
    used = tonumber(call('HGET', KEYS[2 + month], day .. ':' .. ARGV[at + 6] .. '.ok') or 0)
  end
  local raw, forgiven = used, set[n_limits + i * 2 + 1]
  if forgiven then
    local of, count = pair(forgiven)
    if of == period then used = max(used - count, 0) end
  end
  local allowed = used + cost <= amount
  judge(id, allowed, ARGV[at + 4] == '1', ends - now)
  quotas[i] = {id = id, kind = kind, cost = cost, period = period, raw = raw, used = used, amount = amount, ends = ends, ok = allowed}
end

local leases = {}
for i = 1, n_leases do
  local at, key = leases_at + (i - 1) * 4, KEYS[9 + n_guards + i]
  local holder = ARGV[at + 3]
  local held = call('ZCOUNT', key, '(' .. text(now), '+inf')
  local allowed, wait = held < tonumber(ARGV[at + 2]) or holder == '', 0
  if not allowed then
    wait = tonumber(call('ZRANGEBYSCORE', key, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]) - now
  end
  judge(ARGV[at + 1], allowed, false, wait)
  leases[i] = {key = key, holder = holder, held = held, ok = allowed, wait = wait, lasts = tonumber(ARGV[at + 4])}
end

if allow then   -- everything was read; from here on everything is written
  local tats = {}
  for _, s in ipairs(limits) do
    if s.ok and s.cost > 0 then
      tats[#tats + 1] = s.id
      tats[#tats + 1] = text(s.new) .. ':' .. text(s.T)
      refill_us = max(refill_us, s.new - now)
    end
  end
  if #tats > 0 then
    call('HSET', KEYS[1], unpack(tats))
    local keep_ms = math.ceil(refill_us / 1000) + 1   -- never less than the longest refill: forgetting is forgiving
    if call('PTTL', KEYS[1]) < keep_ms then call('PEXPIRE', KEYS[1], keep_ms) end
  end
  for _, q in ipairs(quotas) do
    if q.kind == 'own' and q.ok and q.cost > 0 then
      call('HSET', KEYS[9], q.id, q.period .. ':' .. text(q.raw + q.cost))
      local keep_ms = math.ceil((q.ends - now) / 1000) + 1
      if call('PTTL', KEYS[9]) < keep_ms then call('PEXPIRE', KEYS[9], keep_ms) end
    end
  end
  for _, l in ipairs(leases) do
    if l.holder ~= '' then
      call('ZREMRANGEBYSCORE', l.key, '-inf', text(now))
      call('ZADD', l.key, text(now + l.lasts), l.holder)
      local keep_ms = math.ceil(l.lasts / 1000) + 1
      if call('PTTL', l.key) < keep_ms then call('PEXPIRE', l.key, keep_ms) end
    end
  end
end

if metric ~= '' then
  local day = later and ARGV[9] or ARGV[7]
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

local reply = {allow and '1' or '0', text(now), text(blocked)}
local function say(...) for _, value in ipairs({...}) do reply[#reply + 1] = value end end
for _, s in ipairs(limits) do
  local at = allow and s.ok and s.new or s.base
  local retry = s.ok and '0' or (s.wait == math.huge and '-1' or text(s.wait))
  say(s.ok and '1' or '0', text(math.floor((now + s.full - at) / s.T)), retry, text(at - now), text(s.T), text(s.burst))
end
for _, q in ipairs(quotas) do
  local used = allow and q.ok and q.used + q.cost or q.used
  say(q.ok and '1' or '0', text(used), text(q.amount), text(q.ends))
end
for _, l in ipairs(leases) do
  say(l.ok and '1' or '0', text(allow and l.holder ~= '' and l.held + 1 or l.held), text(l.wait))
end
return reply
