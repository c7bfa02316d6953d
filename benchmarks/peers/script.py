"""The one Redis script of the Python peers: a fixed window of an hour and a counter in one hash."""

# KEYS 1 the user's hash. ARGV 1 limit. Reply 1 if the request is within it, else 0.
COUNT_AND_LIMIT = """
local used = redis.call('HINCRBY', KEYS[1], 'used', 1)
if used == 1 then redis.call('EXPIRE', KEYS[1], 3600) end
if used > tonumber(ARGV[1]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'tokens.mint', 1)
return 1
"""
