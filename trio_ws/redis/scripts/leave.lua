-- A node lives no longer. KEYS: leases, what nodes say of themselves, whom the node owns. ARGV: the node.
-- Returns: nothing.

redis.call("HDEL", KEYS[2], ARGV[1])
if redis.call("EXISTS", KEYS[3]) == 1 then
  redis.call("ZADD", KEYS[1], 0, ARGV[1])
else
  redis.call("ZREM", KEYS[1], ARGV[1])
end
return false
