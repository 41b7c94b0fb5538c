-- ARGV: ns, session. Returns nil for no such session, else how many bytes were freed.

local head = call('HMGET', session, 'log', 'first', 'start')
if not head[1] then return false end
local first, start = tonumber(head[2]), tonumber(head[3])
if first == start then return 0 end

call('HDEL', session, '')  -- changes nothing; but a script that has written is let through where memory is full
call('HSET', session, 'first', start)
counting = true
settle(sid, {{head[1], first, start}})
return freed
