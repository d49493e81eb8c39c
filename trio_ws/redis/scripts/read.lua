-- Events of the rest of a log. KEYS: those of the user. ARGV: first, last, how many at most, how many bytes of payload
-- (once they are reached, that is enough), and in which order: "" for that of the log, "mortal", "lesser".
-- Returns: records and where they are, by turns, and which of them are confirmed.

local events, first, last = KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local most, size, order = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local STEP = 32
local found, marked, total, count = {}, {}, 0, 0

-- Whether that is enough.
local function take(record, at)
  local high, low = string.byte(record, 6, 7) -- of how long the head is (records.py)
  count, total = count + 1, total + math.max(0, #record - 7 - 256 * (high or 0) - (low or 0))
  found[2 * count - 1], found[2 * count] = record, at
  if redis.call("ZSCORE", KEYS[3], at) then
    marked[#marked + 1] = at
  end
  return count >= most or total >= size
end

local function in_order()
  local from = ARGV[1]
  while true do
    local part = redis.call("ZRANGE", events, from, ARGV[2], "BYSCORE", "LIMIT", 0, STEP, "WITHSCORES")
    for n = 1, #part, 2 do
      if take(part[n], part[n + 1]) then
        return
      end
    end
    if #part < 2 * STEP then
      return
    end
    from = "(" .. part[#part]
  end
end

local function by_index(key)
  local rank = 0
  while true do
    local names = redis.call("ZRANGE", key, rank, rank + STEP - 1)
    for _, name in ipairs(names) do
      local at = string.format("%.0f", tonumber(name))
      if tonumber(name) >= first and tonumber(name) <= last then
        local record = redis.call("ZRANGE", events, at, at, "BYSCORE")[1]
        if record and take(record, at) then
          return
        end
      end
    end
    if #names < STEP then
      return
    end
    rank = rank + STEP
  end
end

if order == "" then
  in_order()
else
  by_index(order == "mortal" and KEYS[8] or KEYS[9])
end
return {found, marked}
