-- Whose a log is. This stands before each script that is the owner's to call: KEYS[1] is the log.
--
-- Each change by an owner raises the log's version, which the owner knows: a version that is lower than it was says that
-- Redis has lost changes. `base` is the version that the owner before has left: so one who was the owner notices it even
-- after another has taken the log over. A log of which changes are lost is void until it is loaded into another epoch.
--
-- An owner who was not told whether a change of his was made allows for both: his versions are from `known` to `tried`.
-- A call that was given up, and comes when the log is beyond that, is late: nobody waits for its answer.

local OK, TAKEN, ROLLED_BACK, LATE = 0, 1, 2, 3
local log = KEYS[1]
local owner, version, base, void, rest, newest, marked =
  unpack(redis.call("HMGET", log, "owner", "version", "base", "void", "rest", "newest", "marked"))

local function standing(token, known, tried, may_be_void)
  if owner == token then
    if tonumber(version) > tried then
      return LATE
    elseif tonumber(version) >= known and (may_be_void or not void) then
      return OK
    end
    redis.call("HSET", log, "void", 1, "owner", "", "base", version)
    return ROLLED_BACK
  end
  if base and tonumber(base) >= known then
    return TAKEN
  end
  if base then
    redis.call("HSET", log, "void", 1)
  end
  return ROLLED_BACK
end
