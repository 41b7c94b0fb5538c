-- KEYS: session, index, and on a single server users and owners. ARGV: ns, session, user.
-- Returns nil for no such session, else 1 if it was the user's last one, 0 if not.

local old = views(sid)
if #old == 0 then return false end

call('ZSCORE', index, sid)
call('DEL', session)
call('ZREM', index, sid)
settle(sid, old)
local last = 1 - call('EXISTS', index)
if KEYS[3] then
  if last == 1 then call('HDEL', KEYS[3], ARGV[3]) end
  call('HDEL', KEYS[4], ARGV[3])
end
return last
