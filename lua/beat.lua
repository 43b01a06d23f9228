#!lua flags=allow-oom
-- beat: say that this replica is alive for a while more, or that it leaves, and hear which ones are alive.
-- KEYS[1]  replicas  ZSET, replica → until when it is alive, ms
-- ARGV[1]  replica
-- ARGV[2]  alive_ms  how long a replica is alive after a beat
-- ARGV[3]  leaves    1 if it leaves, else 0
-- RETURNS  once: {'alive', {replicas}}
-- COST     O(replicas)
-- RETRY    safe: a second one says the same again

local GONE_MAX = 1000 -- entries to drop in one call: far below what unpack takes; the next beat drops the rest

local replicas, replica = KEYS[1], ARGV[1]
local alive_ms, leaves = tonumber(ARGV[2]), ARGV[3] == '1'

local function beat()
  local time = redis.call('TIME')
  local now = math.floor(tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000)
  local alive, gone = {}, {}
  local known = redis.call('ZRANGE', replicas, 0, -1, 'WITHSCORES')
  for i = 1, #known, 2 do
    local left_ms = tonumber(known[i + 1]) - now
    -- No beat says more than alive_ms: such an entry has the clock of a primary that is gone.
    if left_ms < 0 or left_ms > alive_ms then
      gone[#gone + 1] = known[i]
    elseif known[i] ~= replica then
      alive[#alive + 1] = known[i]
    end
  end
  if leaves then
    gone[#gone + 1] = replica
  else
    alive[#alive + 1] = replica
  end
  if #gone > 0 then
    redis.call('ZREM', replicas, unpack(gone, math.max(1, #gone - GONE_MAX + 1)))
  end
  if not leaves then
    redis.call('ZADD', replicas, string.format('%.0f', now + alive_ms), replica)
  end
  return {'alive', alive}
end

return {0, {}, {beat()}, 0}
