-- Credit intervals of time to one account, each idempotently: the ledger's entry and the counters change in this one call.
--
-- KEYS  1 ledger  hash: interval -> "left_ms:rank:stamp_ms:note"      2 open  hash: interval -> text, while it is open
--       3, 4 counters of the two months that the periods lie in       5 counters of all time
--       6 own     hash of counters with periods of their own, such as weeks, or months of another time zone
-- ARGV  1 metric   2 how many periods   3 ms to keep a month of counters   4 epoch ms until which the ledger is needed
--       5 ms to keep own counters
--       then 6 per period: position of its key, field, field of the most at once or '', first and last second + 1 (epoch),
--                          the oldest period to keep, '' for those of KEYS 3 and 4
--            8 per interval: id, id in `open`, start_ms, left_ms, rank, stamp_ms, note, text for `open` ('' = has ended)
-- Reply per interval {0 = as known, 1 = changed, 2 = new; change in seconds}, then the change of each period, flat
-- An entry is replaced by the largest (rank, stamp, left), so that intervals may come twice, late and in any order.
-- Seconds are those between floored instants: they add up exactly over any boundary.
-- Cost  O(intervals x periods)

local call, floor, max, min = redis.call, math.floor, math.max, math.min
local match, format = string.match, string.format
local metric, n_periods = ARGV[1], tonumber(ARGV[2])

local periods, opened = {}, {}
for i = 1, n_periods do
  local at = i * 6
  periods[i] = {key = KEYS[tonumber(ARGV[at])], field = ARGV[at + 1], most = ARGV[at + 2], first = tonumber(ARGV[at + 3]),
                last = tonumber(ARGV[at + 4]), oldest = ARGV[at + 5], sum = 0}
end

local function wins(rank, stamp, left, old_rank, old_stamp, old_left)
  if rank ~= old_rank then return rank > old_rank end
  if stamp ~= old_stamp then return stamp > old_stamp end
  return left > old_left
end

local reply, n, total, written = {}, 0, 0, false
for at = 6 + n_periods * 6, #ARGV, 8 do
  local id, start = ARGV[at], floor(tonumber(ARGV[at + 2]) / 1000)
  local left_ms, rank, stamp = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local left, was, status = floor(left_ms / 1000), start, 2
  local old = call('HGET', KEYS[1], id)
  if old then
    local old_left, old_rank, old_stamp = match(old, '^(%d+):(%d+):(%d+):')
    was = floor(tonumber(old_left) / 1000)
    status = wins(rank, stamp, left_ms, tonumber(old_rank), tonumber(old_stamp), tonumber(old_left)) and 1 or 0
  end
  if status > 0 then
    written = true
    call('HSET', KEYS[1], id, format('%s:%s:%s:%s', ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]))
    if ARGV[at + 7] == '' then
      call('HDEL', KEYS[2], ARGV[at + 1])
    elseif call('HSET', KEYS[2], ARGV[at + 1], ARGV[at + 7]) == 1 then
      opened[start] = call('HLEN', KEYS[2])
    end
    total = total + left - was
    for _, p in ipairs(periods) do
      local since = max(start, p.first)
      p.sum = p.sum + max(min(left, p.last) - since, 0) - max(min(was, p.last) - since, 0)
    end
  else
    left = was
  end
  reply[n + 1], reply[n + 2] = status, left - was
  n = n + 2
end

if written then   -- for a day at least, so that a repetition of a late report is recognized
  local lives = max(ARGV[4] - call('TIME')[1] * 1000, 86400000)
  if call('PTTL', KEYS[1]) < lives then call('PEXPIRE', KEYS[1], format('%.0f', lives)) end
end

local function forget(p)   -- drop the periods of the same calendar that have ended long ago
  local stem = match(p.field, '^(.*:)')
  for _, field in ipairs(call('HKEYS', p.key)) do
    if string.sub(field, 1, #stem) == stem and string.sub(field, #stem + 1) < p.oldest then call('HDEL', p.key, field) end
  end
end

for i, p in ipairs(periods) do
  reply[n + i] = p.sum
  if p.sum ~= 0 then
    local now = call('HINCRBY', p.key, p.field, format('%.0f', p.sum))
    if p.oldest ~= '' then
      if now == p.sum then forget(p) end
      if call('PTTL', p.key) < tonumber(ARGV[5]) then call('PEXPIRE', p.key, ARGV[5]) end
    elseif call('PTTL', p.key) < 0 then
      call('PEXPIRE', p.key, ARGV[3])
    end
  end
  if p.most ~= '' then
    for start, count in pairs(opened) do
      if start >= p.first and start < p.last and count > tonumber(call('HGET', p.key, p.most) or 0) then
        call('HSET', p.key, p.most, count)
        if call('PTTL', p.key) < 0 then call('PEXPIRE', p.key, ARGV[3]) end
      end
    end
  end
end
if total ~= 0 then call('HINCRBY', KEYS[5], metric .. '.ok', format('%.0f', total)) end
return reply
