-- Whose a log is. This stands before each script that is the owner's to call: KEYS[1] is the log.
--
-- Each change by an owner raises the log's version, which the owner knows: another one says that Redis has lost changes.
-- With each owner it goes on at what the time is (claim.lua), so that no two owners have the same one; the last few gaps
-- between them are kept. So also who is the owner no more notices that a change that he relies on is lost: it is beyond
-- the log, or in a gap. A log of which changes are lost is void until it is loaded into another epoch; and nobody's, if it
-- was his who notices.
--
-- An owner who was not told whether a change of his was made allows for both: his versions are from `known` to `tried`.
-- A call that was given up, and comes when the log is beyond that, is late: nobody waits for its answer.

local OK, TAKEN, ROLLED_BACK, LATE = 0, 1, 2, 3
local log = KEYS[1]
local owner, version, gaps, void, rest, newest, marked =
  unpack(redis.call("HMGET", log, "owner", "version", "gaps", "void", "rest", "newest", "marked"))

local function is_lost(made)
  for from, to in string.gmatch(gaps or "", "(%d+)%-(%d+)") do
    if made > tonumber(from) and made < tonumber(to) then
      return true
    end
  end
  return made > tonumber(version)
end

local function standing(token, known, tried, made, may_be_void)
  if not version then
    return ROLLED_BACK
  elseif owner == token then
    if tonumber(version) > tried then
      return LATE
    elseif tonumber(version) >= known and (may_be_void or not void) then
      return OK
    end
    redis.call("HSET", log, "void", 1, "owner", "")
    return ROLLED_BACK
  elseif is_lost(made) then
    redis.call("HSET", log, "void", 1)
    return ROLLED_BACK
  end
  return TAKEN
end
