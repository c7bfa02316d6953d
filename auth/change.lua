-- Change fields of an account, provided that it has not changed since the change was decided.
--
-- KEYS  1 u of the user (hash)
-- ARGV  1 the password hash that must still be stored, '*' for any   2 the `changes` it must still have, '*' for any
--       3 what becomes void: `nothing`, the user's `tokens`, or their `sessions` too   4... field, value, ...
-- Reply the user's ver; 0 if there is no such user; -1 if the account has changed. Cost O(fields).
--
-- A change that voids something increments `ver` in the same call: tokens issued before are refused from then on. `since`
-- is the oldest version whose sessions may still be refreshed: older ones are over even if nothing deletes their keys.
-- `voided_s` says when: tokens of identity providers that were issued before open no session any more.
-- `changes` counts the changes of password, roles and status, also those back to an earlier value.

if redis.call('HEXISTS', KEYS[1], 'username') == 0 then return 0 end
if ARGV[1] ~= '*' and redis.call('HGET', KEYS[1], 'password') ~= ARGV[1] then return -1 end
if ARGV[2] ~= '*' and (redis.call('HGET', KEYS[1], 'changes') or '0') ~= ARGV[2] then return -1 end
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
if ARGV[3] == 'nothing' then return tonumber(redis.call('HGET', KEYS[1], 'ver')) or -1 end
if #ARGV > 3 then redis.call('HINCRBY', KEYS[1], 'changes', 1) end
local ver = redis.call('HINCRBY', KEYS[1], 'ver', 1)
if ARGV[3] == 'sessions' then redis.call('HSET', KEYS[1], 'since', ver, 'voided_s', redis.call('TIME')[1]) end
return ver
