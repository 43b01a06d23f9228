#!lua flags=allow-oom
-- count: how many tokens of each pool are in which state, once what is due has been settled.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version
-- RETURNS  per item: {'counted', free, held, total} | {'stale'}
-- COST     O(1) per item, and what is due in the pool, at most SWEEP_MAX entries
-- RETRY    safe: it only settles

local WIDTH = 3
local SWEEP_MAX = 100 -- entries settled per pool; while more are due, the counts trail by the release lag

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if p then
    settle_due(p, SWEEP_MAX)
    local held = tonumber(redis.call('HGET', p.key, 'held') or 0)
    replies[#replies + 1] = {'counted', redis.call('SCARD', p.free), held, redis.call('HLEN', p.records)}
  else
    replies[#replies + 1] = {'stale'}
  end
end
return finish(replies)
