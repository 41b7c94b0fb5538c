-- ARGV: ns, session, the log, revision, first number and length that the caller saw ('' for any length), then record, start and
-- pins; and, for a new head, a new log and log, start and length of the history that it shall show.
-- Returns {0} no such session; {1, its hash} done; {2, its hash} somebody else changed it, nothing was done.

local head = call('HMGET', session, 'log', 'revision', 'first', 'length')
if not head[1] then return {0} end
if head[1] ~= ARGV[3] or head[2] ~= ARGV[4] or head[3] ~= ARGV[5] or (ARGV[6] ~= '' and head[4] ~= ARGV[6]) then
  return {2, call('HGETALL', session)}
end

local old = views(sid)
local changed = moment()
call('HSET', session, 'record', ARGV[7], 'start', ARGV[8], 'pins', ARGV[9], 'revision', head[2] + 1, 'changed', changed)
call('ZADD', index, changed, sid)
if ARGV[10] then
  make_log(ARGV[10], sid, ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13]))
  call('HSET', session, 'log', ARGV[10], 'first', ARGV[12], 'length', ARGV[13])
end
settle(sid, old)
return {1, call('HGETALL', session)}
