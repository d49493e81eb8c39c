-- Whether a log is its owner's yet. KEYS: the log. ARGV: the token; the versions that the owner allows for, from and to.
-- Returns: how the owner stands.

return standing(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), false)
