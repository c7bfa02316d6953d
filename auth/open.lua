-- Open a session and bound the number of a user's sessions: beyond the limit the oldest live ones end. The user's row
-- keeps when the last one was opened.
--
-- KEYS  1 s of the session (hash)   2 us of the user (zset: sid -> epoch ms it was opened)   3 u of the user
-- ARGV  1 sid   2 idle life ms   3 absolute life ms   4 most sessions   5 stem of session keys, without sid
--       6 ver the user had when their password was verified   7 address, 8 client: shown in the list of sessions
--       9 the identity provider and its session, empty after a login with a password
-- Reply {opened_ms}, or {} when the user is gone, not active, or has changed since. Cost O(sessions of the user).
-- The keys of ended sessions are built from KEYS' own slot: the list of them is only known in here.

local u = redis.call('HMGET', KEYS[3], 'status', 'ver', 'since')
if u[1] ~= 'active' or u[2] ~= ARGV[6] then return {} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local text = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'live', '1', 'n', '1', 'at', text, 'opened', text,
  'until', string.format('%.0f', now + ARGV[3]), 'ver', ARGV[6], 'address', ARGV[7], 'agent', ARGV[8])
if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'ext', ARGV[9]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[3], 'login_ms', text)
-- Sessions that have expired, or that a change of the user has ended, do not count.
for _, sid in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local ver = redis.call('HGET', ARGV[5] .. sid, 'ver')
  if not ver or tonumber(ver) < (tonumber(u[3] or 0) or math.huge) then
    redis.call('DEL', ARGV[5] .. sid)
    redis.call('ZREM', KEYS[2], sid)
  end
end
-- The surplus is removed before the new session is added: after a clock is set back it might be the oldest.
local surplus = redis.call('ZCARD', KEYS[2]) + 1 - tonumber(ARGV[4])
if surplus > 0 then
  for _, sid in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do
    redis.call('DEL', ARGV[5] .. sid)
    redis.call('ZREM', KEYS[2], sid)
  end
end
redis.call('ZADD', KEYS[2], text, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {text}
