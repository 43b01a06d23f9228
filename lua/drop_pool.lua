#!lua flags=allow-oom
-- drop_pool: delete a pool's shard. A tombstone stays for a while, so that a replica that slept cannot make it again.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[1]  pool
-- ARGV[2]  generation
-- RETURNS  once: {'dropped'} | {'again'}
-- COST     O(1) and, for each 1,000 buckets that the pool's deadlines lie in, one more call; memory is freed in the background
-- RETRY    safe: what is gone is not dropped again

local TOMBSTONE_S = 3600 -- far longer than a request can live

local p = pool(ARGV[1])
local generation = tonumber(ARGV[2])

local function drop()
  if p.generation > generation then return {'dropped'} end -- it has been made again since
  redis.call('DEL', p.key)
  redis.call('HSET', p.key, 'generation', ARGV[2], 'gone', 1)
  redis.call('EXPIRE', p.key, TOMBSTONE_S)
  return drop_pool(p) and {'dropped'} or {'again'}
end

return finish({drop()})
