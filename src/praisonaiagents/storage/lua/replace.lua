-- ARGV: ns, session, new log, then id and line of each message.
-- Returns {0} no such session; {1, its hash} done.

local old = {views(sid)[1]}
if #old == 0 then return {0} end
local log, length = ARGV[3], old[1][3]
local places = {}
for place = 4, #ARGV, 2 do places[#places + 1] = place end

local changed = moment()
make_log(log, sid, nil, length, length)
push(log, length, places, {})
call('HSET', session, 'log', log, 'start', length, 'first', length, 'length', length + #places, 'changed', changed)
call('HINCRBY', session, 'revision', 1)
call('ZADD', index, changed, sid)
settle(sid, old)
return {1, call('HGETALL', session)}
