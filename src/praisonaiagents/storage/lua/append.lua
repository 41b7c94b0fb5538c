-- ARGV: ns, session, expected length or '', one '0' or '1' a message (1: look whether it is stored already) or '' for all 0,
-- then id and line of each message.
-- Returns {0} no such session; {1, start, length} done; {2, id, line, ...} stored under these ids is something else, nothing
-- was done; {3, length} not the expected length.

local head = call('HMGET', session, 'log', 'start', 'first', 'length')
if not head[1] then return {0} end
local log, first, length = head[1], tonumber(head[3]), tonumber(head[4])

local new, earlier = {}, {}
if ARGV[4] == '' then
  for place = 5, #ARGV, 2 do new[#new + 1] = place end
else
  -- The line that is stored under an id, in the log or in those it is based on.
  local function stored(id)
    local log, stop = log, length
    while log do
      local numbers = call('HGET', ns .. 'i:' .. log, id)
      local base, cut, low = origin(log)
      if numbers then
        if log == head[1] then earlier[id] = numbers end
        for number in string.gmatch(numbers, '%d+') do
          number = tonumber(number)
          if number >= first and number < stop then return call('LINDEX', ns .. 'l:' .. log, number - low) end
        end
      end
      if cut <= first then return nil end
      log, stop = base, math.min(stop, cut)
    end
  end

  local differing = {2}
  for place = 5, #ARGV, 2 do
    local line = nil
    if string.byte(ARGV[4], (place - 3) / 2) == 49 then line = stored(ARGV[place]) end
    if not line then
      new[#new + 1] = place
    elseif line ~= ARGV[place + 1] then
      differing[#differing + 1] = ARGV[place]
      differing[#differing + 1] = line
    end
  end
  if #differing > 1 then return differing end
end
if #new == 0 then
  -- All of it is stored, but perhaps not yet on the replicas that this call waits for. WAIT asks about what its own
  -- connection wrote, so write something behind it. A full memory may refuse that, and nothing is lost then.
  if #ARGV > 4 then redis.pcall('HSET', session, 'length', length) end
  return {1, tonumber(head[2]), length}
end
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= length then return {3, length} end

local changed = moment()
push(log, length, new, earlier)
length = length + #new
call('HSET', session, 'length', length, 'changed', changed)
call('ZADD', index, changed, sid)
return {1, tonumber(head[2]), length}
