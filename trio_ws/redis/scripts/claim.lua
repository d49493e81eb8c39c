-- Makes a node the owner of a log that nobody owns, or whose owner's token is the one named. KEYS: the log. ARGV: the
-- token that it is to have; the node; the token to take it over from, or ""; whether what was done in an earlier life of
-- the server is there for certain.
-- Returns: the token of who owns it, its version, and whether something of it expires.
--
-- What an owner does who lives is held against the versions that he knows. Of one who has died nobody knows what else he
-- did: where the server had another life then, and may have lost some of it, the log is void.

local log = KEYS[1]
local owner, version, due, lived = unpack(redis.call("HMGET", log, "owner", "version", "due", "life"))
local is_due = (due and due ~= "") and 1 or 0
local is_owned = owner and owner ~= ""
if is_owned and (string.match(owner, "^(.*)/") == ARGV[2] or owner ~= ARGV[3]) then
  return {owner, version, is_due}
end
if version then
  redis.call("HDEL", log, "") -- so that a full Redis takes what comes: but nobody new
else
  -- Microseconds: so that a log that comes again begins above where it was.
  local time = redis.call("TIME")
  version = string.format("%.0f", tonumber(time[1]) * 1000000 + tonumber(time[2]))
end
local lives = life()
redis.call("HSET", log, "owner", ARGV[1], "version", version, "base", version, "life", lives)
if is_owned and lived ~= lives and ARGV[4] ~= "1" then
  redis.call("HSET", log, "void", 1)
end
return {ARGV[1], version, is_due}
