-- audit: whether what is stored of one pool agrees with itself. Test-only; runs behind the prelude.
-- ARGV[1]  pool
-- RETURNS  complaints, as texts

local p, found = pool(ARGV[1]), {}
local function complain(...) found[#found + 1] = table.concat({...}, ' ') end

local free, held = 0, 0
local flat = redis.call('HGETALL', p.records)
for i = 1, #flat, 2 do
  local token, t = flat[i], unpack_record(flat[i + 1])
  local assignable = redis.call('SISMEMBER', p.free, token) == 1
  if t.state == FREE then free = free + 1 end
  if t.state == HELD then held = held + 1 end
  if assignable ~= (t.state == FREE) then complain(token, STATES[t.state], 'in the free set:', tostring(assignable)) end
  if t.state ~= FREE and t.deadline == 0 then complain(token, STATES[t.state], 'for ever') end
  if t.deadline > 0 then
    if t.due == 0 then complain(token, 'on no wheel') end
    if t.due > math.ceil(t.deadline / TICK_MS) then complain(token, 'due behind its deadline') end
    if redis.call('SISMEMBER', p.due .. int(t.due), token) == 0 then complain(token, 'not in its bucket') end
    if not redis.call('ZSCORE', p.ticks, int(t.due)) then complain(token, 'in a bucket of no index') end
  end
end
if redis.call('SCARD', p.free) ~= free then complain('free set of', redis.call('SCARD', p.free), 'not', free) end
local counted = tonumber(redis.call('HGET', p.key, 'held') or 0)
if counted ~= held then complain('held is', counted, 'not', held) end
local lowest = tonumber(redis.call('ZRANGE', p.ticks, 0, 0)[1])
local turn = tonumber(redis.call('ZSCORE', TURNS, p.name) or nil)
if lowest and not turn then complain('no turn') end
if lowest and turn and turn > math.max(lowest, now / TICK_MS) then complain('its turn is too late') end
return found
