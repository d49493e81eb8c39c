-- Makes a node the owner of a log that nobody owns, or whose owner's token is the one named. This stands behind guard.lua
-- and life.lua. KEYS: the log. ARGV: the token that it is to have; the node; the token to take it over from, or "";
-- whether what was done in an earlier life of the server is there for certain; the version that the log had when this
-- node let it go, or 0; whether it has told that before.
-- Returns: the token of who owns it, its version, that of the last change before, whether something of it expires, and
-- whether it has a record.
--
-- What an owner does who lives is held against the versions that he knows. Of one who has died nobody knows what else he
-- did: where the server had another life then, and may have lost some of it, the log is void. So it is where it is not
-- what this node has let go. Who has told that before tells it again only where that was lost in its turn: else somebody
-- may have begun the log anew.

local before, made, GAPS = version, tonumber(ARGV[5]), 4
local is_sound = tonumber(before or "") ~= nil
local due, lived, user = unpack(redis.call("HMGET", log, "due", "life", "user"))
local is_due, has_record = (due and due ~= "") and 1 or 0, user and 1 or 0
local is_owned = owner and string.match(owner, "^%x+/%d+$") -- what is no token is nobody's
if is_sound and (made > tonumber(before) or (ARGV[6] == "0" and is_lost(made))) then
  redis.call("HDEL", log, "") -- so that a full Redis takes what comes
  redis.call("HSET", log, "void", 1)
end
if is_owned and (string.match(owner, "^(.*)/") == ARGV[2] or owner ~= ARGV[3]) then
  return {owner, before, before, is_due, has_record}
end
if before then
  redis.call("HDEL", log, "") -- so that a full Redis takes what comes: but nobody new
end
-- Microseconds: nobody makes more changes than that.
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local version = string.format("%.0f", math.max(now, tonumber(before or "0") + 1))
local lives = life()
redis.call("HSET", log, "owner", ARGV[1], "version", version, "life", lives)
if before then
  local kept = {before .. "-" .. version}
  for gap in string.gmatch(gaps or "", "%d+%-%d+") do
    if #kept < GAPS then
      kept[#kept + 1] = gap
    end
  end
  redis.call("HSET", log, "gaps", table.concat(kept, " "))
end
if owner and owner ~= "" and lived ~= lives and ARGV[4] ~= "1" then
  redis.call("HSET", log, "void", 1)
end
return {ARGV[1], version, before or version, is_due, has_record}
