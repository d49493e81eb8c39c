-- Makes a log nobody's, if it is the one's whose token is given; where nothing is kept of it, nothing is left. KEYS: the
-- log. ARGV: the token; whether its owner has died, and some of what it did may be lost where the server had another life
-- then (claim.lua).
-- Returns: nothing.

local log = KEYS[1]
local owner, user, void, lived = unpack(redis.call("HMGET", log, "owner", "user", "void", "life"))
if owner ~= ARGV[1] then
  return false
end
if not (user or void) then
  redis.call("DEL", log)
  return false
end
redis.call("HDEL", log, "") -- so that a full Redis takes what comes
redis.call("HSET", log, "owner", "")
if ARGV[2] == "1" and lived ~= life() then
  redis.call("HSET", log, "void", 1)
end
return false
