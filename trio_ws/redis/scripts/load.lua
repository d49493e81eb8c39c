-- All that is kept of one user, as of one moment, but for the events of the rest. KEYS: those of the user. ARGV: the
-- owner's token; the versions that it allows for, from and to; that of its last change; how many events there are at most
-- where the log has no record of itself; how many keys.
-- Returns: how the owner stands; and where that is well: whether the log is void, its record, what is gone from it, where
-- its rest begins, its events and where they are, the newest, which of them are confirmed, the sessions, the keys and the
-- runs; and of the rest: how many are lesser, when the first expires, and the publishers' keys. What is not there is empty.

local standing_now = standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), true)
if standing_now ~= OK then
  return {standing_now}
end
local user, gone = unpack(redis.call("HMGET", log, "user", "gone"))
local upto = "+inf"
if rest and rest ~= "0" then
  upto = "(" .. rest
end
local most = user and -1 or tonumber(ARGV[5])
local events = redis.call("ZRANGE", KEYS[2], "-inf", upto, "BYSCORE", "LIMIT", 0, most, "WITHSCORES")
return {
  OK,
  void or "",
  user or "",
  gone or "",
  rest or "",
  events,
  redis.call("ZREVRANGE", KEYS[2], 0, 0, "WITHSCORES"),
  redis.call("ZRANGE", KEYS[3], 0, -1),
  redis.call("HGETALL", KEYS[4]),
  redis.call("ZRANGE", KEYS[5], -tonumber(ARGV[6]), -1),
  redis.call("HGETALL", KEYS[6]),
  redis.call("ZCARD", KEYS[9]),
  redis.call("ZRANGE", KEYS[8], 0, 0, "WITHSCORES"),
  redis.call("HGETALL", KEYS[10]),
}
