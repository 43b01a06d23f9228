#!lua flags=allow-oom
-- set_pool: make a pool's shard, or give it a newer policy. What an older generation left is dropped first.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[1]  pool
-- ARGV[2]  generation
-- ARGV[3]  version
-- ARGV[4]  lifetime  ms
-- ARGV[5]  idle_limit  ms, 0 = never
-- ARGV[6]  cooldown  ms, 0 = none
-- ARGV[7]  max_tokens
-- ARGV[8]  max_hold  ms, 0 = no limit
-- ARGV[9]  on_lapse  recycle or delete
-- ARGV[10] born      free or held
-- RETURNS  once: {'set', version of the policy that is here} | {'newer', the generation that is here or was deleted} | {'again'}
-- COST     O(1), and what is due in the pool, at most SWEEP_MAX entries
-- RETRY    safe: a version that is here is not set again

local SWEEP_MAX = 1000 -- entries settled by the policy under which they fell due

local p = pool(ARGV[1])
local generation, version = tonumber(ARGV[2]), tonumber(ARGV[3])

local function set()
  if p.generation > generation or (p.generation == generation and not p.live and p.generation > 0) then
    return {'newer', p.generation}
  end
  if p.generation < generation then
    if not drop_pool(p) then return {'again'} end
    redis.call('DEL', p.key)
  elseif p.version >= version then
    return {'set', p.version}
  else
    settle_due(p, SWEEP_MAX)
  end
  redis.call('HSET', p.key, 'generation', ARGV[2], 'version', ARGV[3], 'lifetime', ARGV[4], 'idle_limit', ARGV[5],
    'cooldown', ARGV[6], 'max_tokens', ARGV[7], 'max_hold', ARGV[8], 'on_lapse', ARGV[9],
    'born', ARGV[10])
  return {'set', version}
end

return finish({set()})
