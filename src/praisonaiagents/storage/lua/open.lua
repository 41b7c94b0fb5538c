-- KEYS: session, index, session, and on a single server users and owners. ARGV: ns, session, user, new log, record, created or ''.
-- Returns {0 or 1, the session's hash}, 1 if it was made.

local stored = call('HGETALL', session)
if #stored > 0 then return {0, stored} end

make_session(sid, ARGV[3], ARGV[4], ARGV[5], ARGV[6], 0, 0)
make_log(ARGV[4], sid, nil, 0, 0)
return {1, call('HGETALL', session)}
