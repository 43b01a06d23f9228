#!lua flags=allow-oom
-- delete: remove each token, in whatever state it is, for good.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, token
-- RETURNS  per item: {'deleted'} | {'absent'} | {'stale'}
-- COST     O(1) per item
-- RETRY    safe: a second delete answers absent

local WIDTH = 4

local function delete(p, token)
  local t = get(p, token)
  if not t.state then return {'absent'} end
  if t.waiter then end_offer(p, t, true) end
  local fence = t.fence
  become_absent(t)
  touch(p, token, t)
  tell(p, 'deleted', token, t, fence)
  return {'deleted'}
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p and delete(p, ARGV[i + 3]) or {'stale'}
end
return finish(replies)
