-- Before a log is claimed: its user is found by name, and by the node should that die. KEYS: leases, names of users, whom
-- the node owns. ARGV: the node, the user.
-- Returns: nothing.

redis.call("ZADD", KEYS[1], "NX", 0, ARGV[1])
redis.call("ZADD", KEYS[2], 0, ARGV[2])
redis.call("SADD", KEYS[3], ARGV[2])
return false
