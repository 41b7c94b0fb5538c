-- ARGV: ns, session, start or '', stop or '', as in Engine.read; then log, start and length of the history to read, or none
-- of these for what the session shows.
-- Returns nil for no such session, else the number of the first message, then lists of lines, newest list first.

local head = call('HMGET', session, 'log', 'start', 'first', 'length')
if not head[1] then return false end
if ARGV[5] then head = {ARGV[5], ARGV[6], ARGV[6], ARGV[7]} end
local log, first, length = head[1], tonumber(head[2]), tonumber(head[4])

local start, stop = tonumber(ARGV[3]), tonumber(ARGV[4])
if start and start < 0 then
  first = math.max(first, length + start)
elseif start then
  first = math.min(math.max(tonumber(head[3]), start), length)
end
stop = math.min(stop or length, length)

local found = {first}
while log and stop > first do
  local base, cut, low = origin(log)
  if stop > cut then
    found[#found + 1] = call('LRANGE', ns .. 'l:' .. log, math.max(first, cut) - low, stop - 1 - low)
    stop = math.max(first, cut)
  end
  log = base
end
return found
