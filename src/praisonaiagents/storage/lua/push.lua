-- Put messages at the end of a log; `places` says where in ARGV each id is, its line right behind it. `earlier` holds the
-- numbers under which an id was stored before. Should something else lie under the list's key, what has been written to the
-- index by then means nothing: no message has such a number.
local function push(log, number, places, earlier)
  local list, index_of_ids = ns .. 'l:' .. log, ns .. 'i:' .. log
  local place = places[1]
  if #places == 1 and not earlier[ARGV[place]] then
    call('HSET', index_of_ids, ARGV[place], number)
    call('RPUSH', list, ARGV[place + 1])
    return
  end
  local function numbered(id) return earlier[id] and earlier[id] .. ' ' .. number or number end
  for from = 1, #places, CHUNK do
    local lines, numbers = {}, {}
    for i = from, math.min(from + CHUNK - 1, #places) do
      numbers[#numbers + 1] = ARGV[places[i]]
      numbers[#numbers + 1] = numbered(ARGV[places[i]])
      lines[#lines + 1] = ARGV[places[i] + 1]
      number = number + 1
    end
    call('HSET', index_of_ids, unpack(numbers))
    call('RPUSH', list, unpack(lines))
  end
end
