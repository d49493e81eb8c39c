-- What is to be known of a log without having it. KEYS: the log, its events, its open runs.
-- Returns: its owner's token, when something of it is due (each "" for none), whether a run is open, and whether anything
-- is kept.

local owner, due, user = unpack(redis.call("HMGET", KEYS[1], "owner", "due", "user"))
local kept = (user or redis.call("EXISTS", KEYS[2]) == 1) and 1 or 0
return {owner or "", due or "", redis.call("EXISTS", KEYS[3]), kept}
