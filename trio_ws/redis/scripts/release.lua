-- Makes a log nobody's, if it is the one's whose token is given; where nothing is kept of it, nothing is left. KEYS: the
-- log. ARGV: the token; the versions that the owner allows for, from and to; that of its last change; whether the owner
-- has died, and some of what it did may be lost where the server had another life then (claim.lua).
-- Returns: how the owner stood: one that has lost changes must not leave as if nothing was, or nobody will notice.

local stands = standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), true)
if stands ~= OK then
  return stands
end
local user, lived = unpack(redis.call("HMGET", log, "user", "life"))
if not (user or void) then
  redis.call("DEL", log)
  return OK
end
redis.call("HDEL", log, "") -- so that a full Redis takes what comes
redis.call("HSET", log, "owner", "")
if ARGV[5] == "1" and lived ~= life() then
  redis.call("HSET", log, "void", 1)
end
return OK
