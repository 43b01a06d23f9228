#!lua flags=allow-oom
-- register: change one pool's entry in the registry, if it still is what the caller read.
-- KEYS[1]  registry   HASH, pool → generation, then the rest of the entry
-- ARGV[1]  pool
-- ARGV[2]  expected   the entry as read, '' for none
-- ARGV[3]  generation  at least this; 0 makes a new one from the clock; -1 removes the entry
-- ARGV[4]  rest       of the entry
-- RETURNS  once: {'stored', generation} | {'removed'} | {'conflict'}
-- COST     O(1)
-- RETRY    safe: a second one answers conflict

local registry, pool, expected, rest = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local generation = tonumber(ARGV[3])

local function register()
  if (redis.call('HGET', registry, pool) or '') ~= expected then return {'conflict'} end
  if generation < 0 then
    redis.call('HDEL', registry, pool)
    return {'removed'}
  end
  if generation == 0 then
    local time = redis.call('TIME')
    generation = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  redis.call('HSET', registry, pool, string.format('%.0f', generation) .. ' ' .. rest)
  return {'stored', generation}
end

return {0, {}, {register()}, 0}
