-- Whether a log is its owner's yet. KEYS: the log. ARGV: the token; the versions that the owner allows for, from and to;
-- whether it is to be noted that nothing of the log is lost in this life of the server.
-- Returns: how the owner stands.

local stands = standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), false)
if stands == OK and ARGV[4] == "1" then
  local lives = life()
  if redis.call("HGET", log, "life") ~= lives then
    redis.call("HSET", log, "life", lives)
  end
end
return stands
