-- shift: let time pass for one pool, so that tests need not wait. Test-only; runs behind the prelude.
-- ARGV[1]  pool
-- ARGV[2]  by  ms, rounded down to whole ticks

local p, by = pool(ARGV[1]), math.floor(tonumber(ARGV[2]) / TICK_MS) * TICK_MS
local ticks = by / TICK_MS

local function back(ms) return ms > 0 and ms - by or 0 end

local flat = redis.call('HGETALL', p.records)
for i = 1, #flat, 2 do
  local t = unpack_record(flat[i + 1])
  t.due, t.deadline, t.since = t.due > 0 and t.due - ticks or 0, back(t.deadline), t.since - by
  redis.call('HSET', p.records, flat[i], pack_record(t))
end
local waiters = redis.call('HGETALL', p.waiters)
for i = 1, #waiters, 2 do
  local w = unpack_waiter(waiters[i + 1])
  w.alive = w.alive - by
  redis.call('HSET', p.waiters, waiters[i], pack_waiter(w))
end
local turn = redis.call('ZSCORE', TURNS, p.name)
if turn then redis.call('ZADD', TURNS, tonumber(turn) - ticks, p.name) end
local index = redis.call('ZRANGE', p.ticks, 0, -1)
redis.call('DEL', p.ticks)
for _, tick in ipairs(index) do
  local moved = int(tonumber(tick) - ticks)
  if redis.call('EXISTS', p.due .. tick) == 1 then redis.call('RENAME', p.due .. tick, p.due .. moved) end
  redis.call('ZADD', p.ticks, moved, moved)
  redis.call('ZADD', TURNS, 'LT', moved, p.name)
end
local window = math.floor(now / 1000 / IDEM_WINDOW_S)
for w = window - OPERATION_WINDOWS, window do
  local from = PREFIX .. ':idem:' .. int(w) .. ':' .. p.name
  local to = PREFIX .. ':idem:' .. int(w - math.floor(by / 1000 / IDEM_WINDOW_S)) .. ':' .. p.name
  if from ~= to and redis.call('EXISTS', from) == 1 then redis.call('RENAME', from, to) end
end
local reserved = redis.call('HGETALL', p.reserved)
for i = 1, #reserved, 2 do
  local deadline, rest = string.match(reserved[i + 1], '^(%d+)(.*)$')
  redis.call('HSET', p.reserved, reserved[i], int(tonumber(deadline) - by) .. rest)
end
redis.call('DEL', ALARM)
return ring()
