-- Which nodes live. KEYS: leases.
-- Returns: those that have a lease, and those that had one, or own something without.

local time = redis.call("TIME")
local now = string.format("%.0f", tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return {
  redis.call("ZRANGE", KEYS[1], "(" .. now, "+inf", "BYSCORE"),
  redis.call("ZRANGE", KEYS[1], "-inf", now, "BYSCORE"),
}
