-- A node lives. KEYS: leases, what nodes say of themselves, what is to be known of all. ARGV: the node, what it says,
-- for how many milliseconds, an id for the data where it has none.
-- Returns: the id of the data; and by turns the nodes that live, for how many milliseconds yet, and what they say.
--
-- Where nobody could beat for longer than half a lease, Redis was away, and no node is to blame: whoever had a lease then
-- has one now.

local leases, about, set = KEYS[1], KEYS[2], KEYS[3]
redis.call("ZREM", leases, "") -- so that a full Redis takes what comes: it refuses scripts by their first change only
local time, lease = redis.call("TIME"), tonumber(ARGV[3])
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call("HSETNX", set, "id", ARGV[4])
local last = tonumber(redis.call("HGET", set, "beat") or "0") or 0
if 2 * (now - last) > lease then
  for _, node in ipairs(redis.call("ZRANGE", leases, string.format("%.0f", last), "+inf", "BYSCORE")) do
    redis.call("ZADD", leases, string.format("%.0f", now + lease), node)
  end
end
redis.call("HSET", set, "beat", string.format("%.0f", now))
redis.call("ZADD", leases, string.format("%.0f", now + lease), ARGV[1])
redis.call("HSET", about, ARGV[1], ARGV[2])
local found = {redis.call("HGET", set, "id")}
local living = redis.call("ZRANGE", leases, "(" .. string.format("%.0f", now), "+inf", "BYSCORE", "WITHSCORES")
for n = 1, #living, 2 do
  found[#found + 1] = living[n]
  found[#found + 1] = string.format("%.0f", math.min(tonumber(living[n + 1]) - now, 1e9))
  found[#found + 1] = redis.call("HGET", about, living[n]) or ""
end
if 2 * redis.call("HLEN", about) > #living then
  for _, node in ipairs(redis.call("ZRANGE", leases, "-inf", string.format("%.0f", now), "BYSCORE")) do
    redis.call("HDEL", about, node)
  end
end
return found
