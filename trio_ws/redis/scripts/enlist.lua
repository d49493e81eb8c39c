-- Before logs are claimed: their users are found by name, and by the node should that die. KEYS: leases, names of users,
-- whom the node owns. ARGV: the node, and users.
-- Returns: nothing.

redis.call("ZREM", KEYS[1], "") -- so that a full Redis takes what comes
redis.call("ZADD", KEYS[1], "NX", 0, ARGV[1])
for n = 2, #ARGV do
  redis.call("ZADD", KEYS[2], 0, ARGV[n])
  redis.call("SADD", KEYS[3], ARGV[n])
end
return false
