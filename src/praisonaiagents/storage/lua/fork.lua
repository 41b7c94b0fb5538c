-- KEYS: the source, index, the new session, and on a single server users and owners.
-- ARGV: ns, the source's name, user, the new session's name, new log, record, created or '', and log, start and length of the
-- history to begin with, or none of these for what the source shows.
-- Returns {0} no such source; {1, the new session's hash} done; {2} the new session is there; {3} such a history isn't held.

local source = views(sid)
local head = source[1]
if not head then return {0} end
if call('EXISTS', KEYS[3]) == 1 then return {2} end

local log, start, length = head[1], tonumber(call('HGET', session, 'start')), head[3]
if ARGV[8] then
  log, start, length = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
  local held = false
  for _, view in ipairs(source) do
    held = held or (view[1] == log and view[2] <= start and start <= length and length <= view[3])
  end
  if not held then return {3} end
end

make_session(ARGV[4], ARGV[3], ARGV[5], ARGV[6], ARGV[7], start, length)
make_log(ARGV[5], ARGV[4], log, start, length)
return {1, call('HGETALL', KEYS[3])}
