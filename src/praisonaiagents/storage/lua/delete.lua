-- KEYS: session, index, and on a single server users and owners. ARGV: ns, session, user.
-- Returns nil for no such session, else 1.

local old = views(sid)
if #old == 0 then return false end

call('ZSCORE', index, sid)
for i = 3, #KEYS do call('HEXISTS', KEYS[i], ARGV[3]) end
call('DEL', session)
call('ZREM', index, sid)
settle(sid, old)
if KEYS[3] then
  if call('EXISTS', index) == 0 then call('HDEL', KEYS[3], ARGV[3]) end
  call('HDEL', KEYS[4], ARGV[3])
end
return 1
