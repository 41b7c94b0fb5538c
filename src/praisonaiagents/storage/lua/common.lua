-- What every script begins with. All keys of one user lie in one slot, so the scripts compute those they are not given.
--
--   {ns}s:{session}   hash   record, created, log, start, first, length, revision, changed, pins
--   {ns}index         zset   session -> changed: microseconds since 1970, later than any change of the user before
--   {ns}l:{log}       list   the JSON lines of the log's own messages; '' where one in the middle was freed
--   {ns}i:{log}       hash   message id -> its number in this log (numbers, where it was freed and given again)
--   {ns}m:{log}       hash   low: number of the list's first item; base, cut: the log begins with the first `cut` messages
--                            of log `base`; s:{session}: a session whose head or pin is here
--   {ns}c:{log}       hash   a log that is based on this one -> its `cut`
--
-- A script that fails in the middle is not rolled back. So each looks at all it needs first, where a wrong type shows,
-- and writes then; the first write is the one that a full memory refuses.

local call = redis.call
local ns, sid = ARGV[1], ARGV[2]
local session, index = KEYS[1], KEYS[2]
local CHUNK = 500  -- arguments of one command; Lua's stack holds a few thousand

-- The time of a change. A clock that was set back must not put the change behind earlier ones.
local function moment()
  local clock = call('TIME')
  local time = clock[1] * 1000000 + clock[2]
  local newest = call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2]
  if newest and tonumber(newest) >= time then time = newest + 1 end
  return string.format('%.0f', time)
end

-- Where a log begins: base and cut, or nil and 0; then the number of its list's first item.
local function origin(log)
  local found = call('HMGET', ns .. 'm:' .. log, 'base', 'cut', 'low')
  return found[1] or nil, tonumber(found[2] or 0), tonumber(found[3] or 0)
end
