-- Makes a log nobody's, if it is the one's whose token is given; where nothing is kept of it, nothing is left. KEYS: the
-- log. ARGV: the token.
-- Returns: nothing.

local log = KEYS[1]
local owner, version, user, void = unpack(redis.call("HMGET", log, "owner", "version", "user", "void"))
if owner == ARGV[1] then
  if user or void then
    redis.call("HSET", log, "owner", "", "base", version)
  else
    redis.call("DEL", log)
  end
end
return false
