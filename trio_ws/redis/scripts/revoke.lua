-- Users are revoked. KEYS: who is, until when each is, what is to be known of all. ARGV: since when; and by turns users,
-- their records, and until when.
-- Returns: nothing. Whose time was over by then is forgotten.

for _, user in ipairs(redis.call("ZRANGE", KEYS[2], "-inf", ARGV[1], "BYSCORE")) do
  redis.call("HDEL", KEYS[1], user)
  redis.call("ZREM", KEYS[2], user)
end
for n = 2, #ARGV, 3 do
  redis.call("HSET", KEYS[1], ARGV[n], ARGV[n + 1])
  redis.call("ZADD", KEYS[2], ARGV[n + 2], ARGV[n])
end
local time = redis.call("TIME")
redis.call("HSET", KEYS[3], "revoked", time[1] .. "." .. time[2])
return false
