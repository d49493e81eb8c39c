-- Changes one log, all at once, for its owner only. To do it again changes nothing.
--
-- KEYS: those of a user. ARGV: the owner's token; the versions that it allows for, from and to; the version from now on;
-- whether the log may be void; how many keys of what is gone are remembered; and then what is to be done, in order: its
-- name, how many arguments it has, and these.
-- Returns: how the owner stands.
--
-- What must be known of an event here is at the start of its record (records.py): a MessagePack array of first, seq, id,
-- type, priority, ts, expires, key, flags, run. Of one that is damaged nothing is.

local at, standing_now = 7, standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5] == "1")
if standing_now ~= OK then
  return standing_now
end
redis.call("HSET", log, "version", ARGV[4])

local events, confirmed, sessions, keys, runs = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local mortal, lesser, ids, aside = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local remembered = tonumber(ARGV[6])
local HEAD, OWNED, CRITICAL, CHUNK = 7, 8, 3, 1000

local function rest_of(text)
  local first = tonumber(text or "0")
  return first > 0 and first or math.huge
end

local rest = rest_of(redis.call("HGET", log, "rest"))

local function head_of(record)
  local sound, _, head = pcall(cmsgpack.unpack_one, record, HEAD)
  if sound and type(head) == "table" and type(head[1]) == "number" and type(head[9]) == "number" then
    return head
  end
end

local function name_of(first)
  return string.format("%016.0f", first)
end

-- The rest of a log may be long: of what is in it, some is found without looking at all of it.
local function index(record)
  local head = head_of(record)
  if not head then
    return
  end
  local name = name_of(head[1])
  if head[7] then
    redis.call("ZADD", mortal, head[7], name)
  end
  if head[5] < CRITICAL then
    redis.call("ZADD", lesser, head[5], name)
  end
  if bit.band(head[9], OWNED) ~= 0 then
    redis.call("HSET", ids, head[3], string.format("%.0f", head[2]))
  end
end

local function leave_index(first, record)
  local head = head_of(record)
  redis.call("ZREM", mortal, name_of(first))
  redis.call("ZREM", lesser, name_of(first))
  if head then
    local seq = redis.call("HGET", ids, head[3])
    if seq and tonumber(seq) == head[2] then
      redis.call("HDEL", ids, head[3])
    end
  end
end

local function each(first, last, act)
  local found = redis.call("ZRANGE", events, first, last, "BYSCORE", "WITHSCORES")
  for n = 1, #found, 2 do
    act(tonumber(found[n + 1]), found[n])
  end
end

local function move_rest(to)
  if to == math.huge and rest < to then
    redis.call("DEL", mortal, lesser, ids)
  elseif to > rest then
    each(string.format("%.0f", rest), "(" .. string.format("%.0f", to), leave_index)
  elseif to < rest then
    local upto = rest == math.huge and "+inf" or "(" .. string.format("%.0f", rest)
    each(string.format("%.0f", to), upto, function(_, record) index(record) end)
  end
  rest = to
end

local function remember(seq, state, id)
  redis.call("ZREMRANGEBYSCORE", keys, seq, seq)
  redis.call("ZADD", keys, seq, seq .. " " .. state .. " " .. id)
end

local function forget_oldest()
  redis.call("ZREMRANGEBYRANK", keys, 0, -remembered - 1)
end

local function chunks(command, key, first, last)
  for n = first, last, CHUNK do
    redis.call(command, key, unpack(ARGV, n, math.min(n + CHUNK - 1, last)))
  end
end

local acts = {}

function acts.close()
  redis.call("DEL", events, confirmed, sessions, keys, runs, mortal, lesser, ids)
  redis.call("HDEL", log, "user", "gone", "rest", "due")
  rest = math.huge
end

function acts.remove(from, to)
  local remembers = false
  for n = from, to, 4 do
    local first, last, state, owned = ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3] == "1"
    if owned or tonumber(last) >= rest then
      each(first, last, function(at, record)
        local head = head_of(record)
        if at >= rest then
          leave_index(at, record)
        end
        if owned and head and bit.band(head[9], OWNED) ~= 0 then
          remember(string.format("%.0f", head[2]), state, head[3])
          remembers = true
        end
      end)
    end
    redis.call("ZREMRANGEBYSCORE", events, first, last)
    redis.call("ZREMRANGEBYSCORE", confirmed, first, last)
  end
  if remembers then
    forget_oldest()
  end
end

function acts.log(from)
  local record, gone, upto, first, due = unpack(ARGV, from, from + 4)
  redis.call("HSET", log, "user", record, "rest", first, "due", due)
  if gone ~= "" then
    redis.call("HSET", log, "gone", gone)
  end
  redis.call("ZREMRANGEBYSCORE", confirmed, "-inf", upto)
  local to = rest_of(first)
  if to ~= rest then
    move_rest(to)
  end
end

function acts.keys(from, to)
  for n = from, to, 3 do
    remember(ARGV[n], ARGV[n + 1], ARGV[n + 2])
  end
  forget_oldest()
end

function acts.events(from, to)
  local newest = redis.call("ZREVRANGE", events, 0, 0, "WITHSCORES")[2]
  newest = newest and tonumber(newest) or 0
  for n = from, to, 2 do
    local first = tonumber(ARGV[n])
    if first <= newest then
      if first >= rest then
        each(ARGV[n], ARGV[n], leave_index)
      end
      redis.call("ZREMRANGEBYSCORE", events, ARGV[n], ARGV[n])
      redis.call("ZREM", confirmed, ARGV[n])
    end
    if first >= rest then
      index(ARGV[n + 1])
    end
  end
  chunks("ZADD", events, from, to)
end

function acts.confirm(from, to)
  for n = from, to do
    if redis.call("ZCOUNT", events, ARGV[n], ARGV[n]) > 0 then
      redis.call("ZADD", confirmed, ARGV[n], ARGV[n])
    end
  end
end

acts["end"] = function(from, to)
  chunks("HDEL", sessions, from, to)
end

function acts.sessions(from, to)
  chunks("HSET", sessions, from, to)
end

function acts.runs(from, to)
  chunks("HSET", runs, from, to)
end

function acts.forget(from, to)
  chunks("HDEL", runs, from, to)
end

-- What makes no sense is set aside: where it is, and what it is there; and what is to be kept of it.
function acts.aside(from, to)
  for n = from, to, 3 do
    local place, what = ARGV[n], ARGV[n + 1]
    if place == "events" then
      local first = redis.call("ZSCORE", events, what)
      if first and tonumber(first) >= rest then
        leave_index(tonumber(first), what)
      end
      redis.call("ZREM", events, what)
    elseif place == "keys" then
      redis.call("ZREM", keys, what)
    elseif place == "sessions" or place == "runs" then
      redis.call("HDEL", place == "runs" and runs or sessions, what)
    end
    redis.call("RPUSH", aside, ARGV[n + 2])
  end
end

-- The log goes on in another epoch.
function acts.renew()
  redis.call("HDEL", log, "void")
  redis.call("DEL", sessions)
end

while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  acts[ARGV[at]](at + 2, at + 1 + count)
  at = at + 2 + count
end
return OK
