-- Which life of a server this is: it is another after a restart, and where a replica has taken over. What was done last
-- in the life before may be lost. This stands before scripts that ask for it.

local function life()
  local info = redis.pcall("INFO", "server")
  return type(info) == "string" and string.match(info, "run_id:(%x+)") or ""
end
