-- Whether a log is its owner's yet. KEYS: the log. ARGV: the token; the versions that the owner allows for, from and to;
-- that of its last change; whether it is to be noted that nothing of the log is lost in this life of the server.
-- Returns: how the owner stands.

local stands = standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), false)
if stands == OK and ARGV[5] == "1" then
  local lives = life()
  if redis.call("HGET", log, "life") ~= lives then
    redis.call("HSET", log, "life", lives)
  end
end
return stands
