-- KEYS: users, or the owners of a session id. ARGV: a user, and the token last seen there. See Directory.

if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
