-- ARGV: ns, session, the log, revision and first number that the caller saw, then record, start and pins; and, for a new head, a new log
-- and log, start and length of the history that it shall show.
-- Returns {0} no such session; {1, its hash} done; {2, its hash} somebody else changed it, nothing was done.

local head = call('HMGET', session, 'log', 'revision', 'first')
if not head[1] then return {0} end
if head[1] ~= ARGV[3] or head[2] ~= ARGV[4] or head[3] ~= ARGV[5] then return {2, call('HGETALL', session)} end

local old = views(sid)
local changed = moment()
call('HSET', session, 'record', ARGV[6], 'start', ARGV[7], 'pins', ARGV[8], 'revision', head[2] + 1, 'changed', changed)
call('ZADD', index, changed, sid)
if ARGV[9] then
  make_log(ARGV[9], sid, ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12]))
  call('HSET', session, 'log', ARGV[9], 'first', ARGV[11], 'length', ARGV[12])
end
settle(sid, old)
return {1, call('HGETALL', session)}
