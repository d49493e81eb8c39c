-- What is to be known of a log without having it. KEYS: the log, its runs, its events.
-- Returns: its owner's token, when something of it is due (each "" for none), whether a run is open, and whether anything
-- is kept.

local owner, due, user = unpack(redis.call("HMGET", KEYS[1], "owner", "due", "user"))
local open = 0
for _, record in ipairs(redis.call("HVALS", KEYS[2])) do
  if string.byte(record, 7) == 0xc3 then -- its first field is true (records.py)
    open = 1
    break
  end
end
local kept = (user or redis.call("EXISTS", KEYS[3]) == 1) and 1 or 0
return {owner or "", due or "", open, kept}
