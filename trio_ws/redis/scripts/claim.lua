-- Makes a node the owner of a log that nobody owns, or whose owner's token is the one named. KEYS: the log. ARGV: the
-- token that it is to have; the node; the token to take it over from, or "".
-- Returns: the token of who owns it, its version, and whether something of it expires.

local log = KEYS[1]
local owner, version, due = unpack(redis.call("HMGET", log, "owner", "version", "due"))
local is_due = (due and due ~= "") and 1 or 0
if owner and owner ~= "" and (string.match(owner, "^(.*)/") == ARGV[2] or owner ~= ARGV[3]) then
  return {owner, version, is_due}
end
if not version then
  -- Microseconds: so that a log that comes again begins above where it was.
  local time = redis.call("TIME")
  version = string.format("%.0f", tonumber(time[1]) * 1000000 + tonumber(time[2]))
end
redis.call("HSET", log, "owner", ARGV[1], "version", version, "base", version)
return {ARGV[1], version, is_due}
