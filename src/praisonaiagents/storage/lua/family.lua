-- Logs that share messages, and what becomes of those nobody looks at any more.
--
-- Two things hold whenever a script ends: a log is there if and only if a session's head or pin is in it or another log is
-- based on it, and a log is based on another one only as long as somebody sees a message of that one through it. So freeing
-- looks at the logs below what was let go, and at those based on them only until all of it is seen by somebody.

local freed, counting = 0, false  -- bytes of messages; whether those of whole logs count

-- What a session looks at: a list of {log, from, to}, its head first.
local function views(name)
  local found = call('HMGET', ns .. 's:' .. name, 'log', 'first', 'length', 'pins')
  local seen = {}
  if found[1] then seen[1] = {found[1], tonumber(found[2]), tonumber(found[3])} end
  for log, from, to in string.gmatch(found[4] or '', '(%S+) (%d+) (%d+);') do
    seen[#seen + 1] = {log, tonumber(from), tonumber(to)}
  end
  return seen
end

-- Make a session that shows messages `start` to `length` of log `log`, and say who has it where one server knows all (KEYS[4]
-- and KEYS[5], see Directory).
local function make_session(name, user, log, record, created, start, length)
  local changed = moment()
  if KEYS[4] then
    call('HGET', KEYS[4], user)
    call('HGET', KEYS[5], user)
    call('HSET', KEYS[4], user, '')
    call('HSET', KEYS[5], user, '')
  end
  if created == '' then created = string.format('%.6f', changed / 1000000) end
  call('HSET', KEYS[3], 'record', record, 'created', created, 'log', log, 'start', start, 'first', start,
    'length', length, 'revision', 0, 'changed', changed)
  call('ZADD', index, changed, name)
end

-- Make a log that shows the messages before `length` of log `base`, of which the first `start` are of no interest.
local function make_log(log, owner, base, start, length)
  call('HSET', ns .. 'm:' .. log, 'low', length, 's:' .. owner, '')
  if not base or start == length then return end
  local below, cut = origin(base)
  while below and length <= cut do  -- the oldest log that holds all of it
    base = below
    below, cut = origin(base)
  end
  call('HSET', ns .. 'm:' .. log, 'base', base, 'cut', length)
  call('HSET', ns .. 'c:' .. base, log, length)
end

-- Tell `look` what is seen of messages `from` to `to` of a log, through it and the logs based on it. It returns the number from
-- which on it wants to know more, so that thousands of forks need not be looked at where one of them sees everything.
local function look_through(log, from, to, look)
  local todo = {{log, to}}
  while #todo > 0 and from < to do
    local log, limit, cursor = unpack(todo[#todo])
    if not cursor and limit > from then
      for _, field in ipairs(call('HKEYS', ns .. 'm:' .. log)) do
        local views_ = string.sub(field, 1, 2) == 's:' and views(string.sub(field, 3)) or {}
        for _, view in ipairs(views_) do
          local last = math.min(view[3], limit)
          if view[1] == log and view[2] < last then from = look(view[2], last) end
        end
      end
    end
    if cursor == '0' or limit <= from then
      table.remove(todo)
    else
      local children
      todo[#todo][3], children = unpack(call('HSCAN', ns .. 'c:' .. log, cursor or '0', 'COUNT', 100))
      for i = 1, #children, 2 do todo[#todo + 1] = {children[i], math.min(limit, tonumber(children[i + 1]))} end
    end
  end
end

-- What nobody sees of messages `from` to `to` of a log's own: a list of {from, to}.
local function unseen(log, from, to)
  if from >= to then return {} end
  local gaps = {{from, to}}
  look_through(log, from, to, function(first, last)
    local rest = {}
    for _, gap in ipairs(gaps) do
      if gap[1] < first then rest[#rest + 1] = {gap[1], math.min(gap[2], first)} end
      if gap[2] > last then rest[#rest + 1] = {math.max(gap[1], last), gap[2]} end
    end
    gaps = rest
    return #gaps > 0 and gaps[1][1] or to
  end)
  return gaps
end

local function reaches_below(log, cut)
  local found = false
  look_through(log, 0, cut, function()
    found = true
    return cut
  end)
  return found
end

-- The ids of messages and their numbers, from their lines, the first one's number being `first`. What is empty has none.
local function ids_of(lines, first)
  local ids, numbers = {}, {}
  for i, line in ipairs(lines) do
    local whole, message = pcall(cjson.decode, line)
    if whole and type(message) == 'table' and type(message.id) == 'string' then
      ids[#ids + 1] = message.id
      numbers[#numbers + 1] = first + i - 1
    end
  end
  return ids, numbers
end

-- Do something with own messages `from` to `to` of a log: with some lines at a time, and the number of the first of them.
local function each_part(log, low, from, to, work)
  for first = from, to - 1, CHUNK do
    work(call('LRANGE', ns .. 'l:' .. log, first - low, math.min(first + CHUNK, to) - 1 - low), first)
  end
end

-- Take freed messages out of a log's index of ids.
local function forget_ids(log, lines, first)
  local ids, numbers = ids_of(lines, first)
  if #ids == 0 then return end
  local gone = {}
  for i, held in ipairs(call('HMGET', ns .. 'i:' .. log, unpack(ids))) do
    if held and string.find(held, ' ') then held = call('HGET', ns .. 'i:' .. log, ids[i]) end
    local rest = {}
    for number in string.gmatch(held or '', '%d+') do
      if tonumber(number) ~= numbers[i] then rest[#rest + 1] = number end
    end
    if #rest > 0 then
      call('HSET', ns .. 'i:' .. log, ids[i], table.concat(rest, ' '))
    else
      gone[#gone + 1] = ids[i]
    end
  end
  if #gone > 0 then call('HDEL', ns .. 'i:' .. log, unpack(gone)) end
end

-- Make a log's index of ids anew, without messages `from` to `to`: less work if they are most of its `length` messages.
local function index_without(log, low, from, to, length)
  local held, pairs_ = {}, {}
  local function add(lines, first)
    local ids, numbers = ids_of(lines, first)
    for i, id in ipairs(ids) do held[id] = held[id] and held[id] .. ' ' .. numbers[i] or numbers[i] end
  end
  each_part(log, low, low, from, add)
  each_part(log, low, to, low + length, add)
  call('UNLINK', ns .. 'i:' .. log)
  for id, numbers in pairs(held) do
    pairs_[#pairs_ + 1] = id
    pairs_[#pairs_ + 1] = numbers
  end
  for i = 1, #pairs_, CHUNK do call('HSET', ns .. 'i:' .. log, unpack(pairs_, i, math.min(i + CHUNK - 1, #pairs_))) end
end

-- Whether a session goes on appending to a log: then the end of the list must stay where it is.
local function is_head(log)
  for _, field in ipairs(call('HKEYS', ns .. 'm:' .. log)) do
    if string.sub(field, 1, 2) == 's:' and views(string.sub(field, 3))[1][1] == log then return true end
  end
  return false
end

-- Free own messages of a log: at its ends the list gets shorter, in the middle their places stay, empty.
local function free(log, from, to)
  local list = ns .. 'l:' .. log
  local _, _, low = origin(log)
  local length = call('LLEN', list)
  local most = to - from > length / 2
  if counting or not most then
    each_part(log, low, from, to, function(lines, first)
      for _, line in ipairs(lines) do freed = freed + #line end
      if not most then forget_ids(log, lines, first) end
    end)
  end
  if most then index_without(log, low, from, to, length) end
  if from == low then
    call('LTRIM', list, to - low, -1)
    call('HSET', ns .. 'm:' .. log, 'low', to)
  elseif to == low + length and not is_head(log) then
    call('LTRIM', list, 0, from - low - 1)
  else
    for number = from, to - 1 do call('LSET', list, number - low, '') end
  end
end

-- Take what is empty off the ends of a log.
local function trim(log)
  local list = ns .. 'l:' .. log
  while call('LINDEX', list, 0) == '' do
    call('LPOP', list)
    call('HINCRBY', ns .. 'm:' .. log, 'low', 1)
  end
  if call('LINDEX', list, -1) ~= '' or is_head(log) then return end
  while call('LINDEX', list, -1) == '' do call('RPOP', list) end
end

-- Remove a log that nothing needs.
local function remove(log, base, low)
  if counting then
    each_part(log, low, low, low + call('LLEN', ns .. 'l:' .. log), function(lines)
      for _, line in ipairs(lines) do freed = freed + #line end
    end)
  end
  call('UNLINK', ns .. 'l:' .. log, ns .. 'i:' .. log, ns .. 'm:' .. log)
  if base then call('HDEL', ns .. 'c:' .. base, log) end
end

-- Nobody need see messages `from` to `to` of a log through it any longer, as far as one session is concerned.
local function let_go(log, from, to)
  while log and call('EXISTS', ns .. 'm:' .. log) == 1 do
    local base, cut, low = origin(log)
    if call('HLEN', ns .. 'm:' .. log) == (base and 3 or 1) and call('EXISTS', ns .. 'c:' .. log) == 0 then
      remove(log, base, low)
    else
      local last = math.min(to, low + call('LLEN', ns .. 'l:' .. log))
      for _, gap in ipairs(unseen(log, math.max(from, low), last)) do free(log, gap[1], gap[2]) end
      trim(log)
      if not base or from >= cut then return end
      if not reaches_below(log, cut) then
        call('HDEL', ns .. 'm:' .. log, 'base', 'cut')
        call('HDEL', ns .. 'c:' .. base, log)
      end
    end
    log, to = base, math.min(to, cut)
  end
end

-- Free what a session looked at before (`old`, see `views`), and neither it nor anybody else does now.
local function settle(name, old)
  local now, hulls = {}, {}
  for _, view in ipairs(views(name)) do
    now[view[1]] = true
    now[table.concat(view, ' ')] = true
  end
  for _, view in ipairs(old) do
    if not now[table.concat(view, ' ')] then
      local hull = hulls[view[1]] or {view[2], view[3]}
      hulls[view[1]] = {math.min(hull[1], view[2]), math.max(hull[2], view[3])}
    end
  end
  for log in pairs(hulls) do  -- all of them before any is freed: freeing asks who is left
    if not now[log] then call('HDEL', ns .. 'm:' .. log, 's:' .. name) end
  end
  for log, hull in pairs(hulls) do let_go(log, hull[1], hull[2]) end
end
