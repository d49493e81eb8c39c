-- Changes one log, all at once, for its owner only. To do it again changes nothing.
--
-- KEYS: those of a user. ARGV: the owner's token; the versions that it allows for, from and to; that of its last change;
-- the version from now on; whether the log may be void; how many keys of what is gone are remembered; whether there are
-- new events; and then what is to be done, in order: its name, how many arguments it has, and these.
-- Returns: how the owner stands.
--
-- What must be known of an event here is at the start of its record (records.py): a MessagePack array of first, seq, id,
-- type, priority, ts, expires, key, flags, run. Of one that is damaged nothing is.
--
-- It is short of functions and calls where it is called for each commit of each user: they are half of what it costs.

local stands = standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6] == "1")
if stands ~= OK then
  return stands
end

local events, confirmed, sessions, keys, runs = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local open, mortal, lesser, ids, aside = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local HEAD, OWNED, CRITICAL, CHUNK = 7, 8, 3, 1000
local fields = {"version", ARGV[5]} -- what is to be set in the log in the end

if ARGV[8] == "0" then
  -- Where memory is at its limit, Redis refuses a script whose first change may need some. This one needs none to speak
  -- of, and others may be waiting for what it frees.
  redis.call("ZREM", confirmed, "")
end

rest = tonumber(rest or "0")
if rest == 0 then
  rest = math.huge
end

local function head_of(record)
  local sound, _, head = pcall(cmsgpack.unpack_one, record, HEAD)
  if not sound or type(head) ~= "table" or type(head[1]) ~= "number" or type(head[2]) ~= "number"
    or type(head[3]) ~= "string" or type(head[5]) ~= "number" or type(head[9]) ~= "number" then
    return
  end
  local expires = head[7]
  if expires == nil or (type(expires) == "number" and expires == expires) then
    return head
  end
end

local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end

local function pairs_of(first, last)
  return redis.call("ZRANGE", events, first, last, "BYSCORE", "WITHSCORES")
end

local function chunks(command, key, first, last)
  for n = first, last, CHUNK do
    redis.call(command, key, unpack(ARGV, n, math.min(n + CHUNK - 1, last)))
  end
end

-- The rest of a log may be long: some of what is in it is found without looking at all of it.
local function indexing()
  local function name_of(first)
    return string.format("%016.0f", first)
  end

  local function add(record)
    local head = head_of(record)
    if not head then
      return
    end
    if head[7] then
      redis.call("ZADD", mortal, head[7], name_of(head[1]))
    end
    if head[5] < CRITICAL then
      redis.call("ZADD", lesser, head[5], name_of(head[1]))
    end
    if bit.band(head[9], OWNED) ~= 0 then
      redis.call("HSET", ids, head[3], string.format("%.0f", head[2]))
    end
  end

  local function remove(first, record)
    local head = head_of(record)
    redis.call("ZREM", mortal, name_of(first))
    redis.call("ZREM", lesser, name_of(first))
    local seq = head and redis.call("HGET", ids, head[3])
    if seq and tonumber(seq) == head[2] then
      redis.call("HDEL", ids, head[3])
    end
  end

  -- The rest begins elsewhere.
  local function move(to)
    local low, high = math.min(rest, to), math.max(rest, to)
    if to == math.huge then
      redis.call("DEL", mortal, lesser, ids)
    else
      local upto = high == math.huge and "+inf" or "(" .. string.format("%.0f", high)
      local found = pairs_of(string.format("%.0f", low), upto)
      for n = 1, #found, 2 do
        if to < rest then
          add(found[n])
        else
          remove(tonumber(found[n + 1]), found[n])
        end
      end
    end
  end

  return {add = add, remove = remove, move = move}
end

local index -- made when it is needed

local function remember(seq, state, id)
  redis.call("ZREMRANGEBYSCORE", keys, seq, seq)
  redis.call("ZADD", keys, seq, seq .. " " .. state .. " " .. id)
end

local function forget_oldest()
  redis.call("ZREMRANGEBYRANK", keys, 0, -tonumber(ARGV[7]) - 1)
end

local function remove(first, last, state, owned)
  if owned or tonumber(last) >= rest then
    local found = pairs_of(first, last)
    for n = 1, #found, 2 do
      local record, at = found[n], tonumber(found[n + 1])
      if at >= rest then
        index = index or indexing()
        index.remove(at, record)
      end
      local head = owned and head_of(record)
      if head and bit.band(head[9], OWNED) ~= 0 then
        remember(string.format("%.0f", head[2]), state, head[3])
      end
    end
  end
  redis.call("ZREMRANGEBYSCORE", events, first, last)
  if marked then
    redis.call("ZREMRANGEBYSCORE", confirmed, first, last)
  end
end

-- An event takes the place of the one that was there.
local function replace(first, record)
  if tonumber(first) <= newest then
    if tonumber(first) >= rest then
      local found = pairs_of(first, first)
      if found[1] then
        index = index or indexing()
        index.remove(tonumber(first), found[1])
      end
    end
    redis.call("ZREMRANGEBYSCORE", events, first, first)
    redis.call("ZREM", confirmed, first)
  end
  if tonumber(first) >= rest then
    index = index or indexing()
    index.add(record)
  end
end

-- What makes no sense is set aside: where it is, and what it is there; and what is to be kept of it.
local function set_aside(place, what, told)
  if place == "events" then
    local first = redis.call("ZSCORE", events, what)
    if first and tonumber(first) >= rest then
      index = index or indexing()
      index.remove(tonumber(first), what)
    end
    redis.call("ZREM", events, what)
  elseif place == "keys" then
    redis.call("ZREM", keys, what)
  elseif place == "sessions" then
    redis.call("HDEL", sessions, what)
  elseif place == "runs" then
    redis.call("HDEL", runs, what)
    redis.call("SREM", open, what)
  end
  redis.call("RPUSH", aside, told)
end

newest = tonumber(newest or "0") or 0
local at = 9
while at <= #ARGV do
  local act, from, to = ARGV[at], at + 2, at + 1 + tonumber(ARGV[at + 1])
  if act == "log" then
    local record, gone, upto, first, due = unpack(ARGV, from, to)
    set("user", record)
    set("rest", first)
    set("due", due)
    if gone ~= "" then
      set("gone", gone)
    end
    if marked then
      redis.call("ZREMRANGEBYSCORE", confirmed, "-inf", upto)
      if redis.call("EXISTS", confirmed) == 0 then
        redis.call("HDEL", log, "marked")
        marked = false
      end
    end
    local moved = tonumber(first) > 0 and tonumber(first) or math.huge
    if moved ~= rest then
      index = index or indexing()
      index.move(moved)
      rest = moved
    end
  elseif act == "events" then
    local head = newest
    for n = from, to, 2 do
      local first = tonumber(ARGV[n])
      if first <= newest or first >= rest then
        replace(ARGV[n], ARGV[n + 1])
      end
      head = math.max(head, first)
    end
    chunks("ZADD", events, from, to)
    newest = head
    set("newest", string.format("%.0f", head))
  elseif act == "sessions" then
    chunks("HSET", sessions, from, to)
  elseif act == "remove" then
    local remembers = false
    for n = from, to, 4 do
      local owned = ARGV[n + 3] == "1"
      remove(ARGV[n], ARGV[n + 1], ARGV[n + 2], owned)
      remembers = remembers or owned
    end
    if remembers then
      forget_oldest()
    end
  elseif act == "keys" then
    for n = from, to, 3 do
      remember(ARGV[n], ARGV[n + 1], ARGV[n + 2])
    end
    forget_oldest()
  elseif act == "confirm" then
    for n = from, to do
      if redis.call("ZCOUNT", events, ARGV[n], ARGV[n]) > 0 then
        redis.call("ZADD", confirmed, ARGV[n], ARGV[n])
        set("marked", 1)
      end
    end
  elseif act == "runs" then
    for n = from, to, 3 do
      redis.call("HSET", runs, ARGV[n], ARGV[n + 1])
      redis.call(ARGV[n + 2] == "1" and "SADD" or "SREM", open, ARGV[n])
    end
  elseif act == "end" then
    chunks("HDEL", sessions, from, to)
  elseif act == "forget" then
    chunks("HDEL", runs, from, to)
    chunks("SREM", open, from, to)
  elseif act == "close" then
    redis.call("DEL", events, confirmed, sessions, keys, runs, open, mortal, lesser, ids)
    redis.call("HDEL", log, "user", "gone", "rest", "due", "newest", "marked")
    rest, newest, marked = math.huge, 0, false
  elseif act == "aside" then
    for n = from, to, 3 do
      set_aside(ARGV[n], ARGV[n + 1], ARGV[n + 2])
    end
  elseif act == "renew" then -- the log goes on in another epoch
    redis.call("HDEL", log, "void")
    redis.call("DEL", sessions)
  end
  at = to + 1
end
redis.call("HSET", log, unpack(fields))
return OK
