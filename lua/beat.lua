#!lua flags=allow-oom
-- beat: say that this replica is alive for a while more, or that it leaves, and hear which ones are alive.
-- KEYS[1]  replicas  ZSET, replica → until when it is alive, ms
-- KEYS[2]  settings  HASH, replica → settings that all replicas must have alike, as JSON
-- ARGV[1]  replica
-- ARGV[2]  alive_ms  how long a replica is alive after a beat
-- ARGV[3]  leaves    1 if it leaves, else 0
-- ARGV[4]  its settings, or nothing: those that it has said before
-- RETURNS  once: {'alive', {replicas}, new: 1 if it was not in the list, else 0}
-- COST     O(replicas)
-- RETRY    safe: a second one says the same again

local GONE_MAX = 1000 -- entries to drop in one call: far below what unpack takes; the next beat drops the rest

local replicas, settings, replica = KEYS[1], KEYS[2], ARGV[1]
local alive_ms, leaves, said = tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]

local function drop(command, key, gone)
  if #gone > 0 then
    redis.call(command, key, unpack(gone, math.max(1, #gone - GONE_MAX + 1)))
  end
end

-- Drops the settings of all that are not alive: also of one that an older version of this script has dropped.
local function keep_settings_of(alive)
  local is_alive, gone = {}, {}
  for _, name in ipairs(alive) do is_alive[name] = true end
  for _, name in ipairs(redis.call('HKEYS', settings)) do
    if not is_alive[name] then gone[#gone + 1] = name end
  end
  drop('HDEL', settings, gone)
end

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
  drop('ZREM', replicas, gone)
  local new = 0
  if not leaves then
    new = redis.call('ZADD', replicas, string.format('%.0f', now + alive_ms), replica)
    if said ~= '' then redis.call('HSET', settings, replica, said) end
  end
  if #gone > 0 or said ~= '' then keep_settings_of(alive) end
  return {'alive', alive, new}
end

return {0, {}, {beat()}, 0}
