-- A node that is dead owns these no longer. KEYS: leases, whom the node owned, who has something due. ARGV: the node; and
-- by turns users, and when something of theirs is due whom nobody owns, or "".
-- Returns: nothing. A node that lives again is left alone.

local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = redis.call("ZSCORE", KEYS[1], ARGV[1])
if lease and tonumber(lease) > now then
  return false
end
for n = 2, #ARGV, 2 do
  if ARGV[n + 1] ~= "" then
    redis.call("ZADD", KEYS[3], ARGV[n + 1], ARGV[n])
  end
  redis.call("SREM", KEYS[2], ARGV[n])
end
if redis.call("EXISTS", KEYS[2]) == 0 then
  redis.call("ZREM", KEYS[1], ARGV[1])
end
return false
