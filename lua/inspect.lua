#!lua flags=no-writes
-- inspect: tell how each token stands now, every deadline that has passed counted as happened.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, token
-- RETURNS  per item: {'found', state, fence or 0, deadline_ms or 0, since_ms, holder or ''} | {'absent'} | {'stale'}
-- COST     O(1) per item
-- RETRY    safe: it writes nothing

local WIDTH = 4

local function inspect(p, token)
  local t = get(p, token)
  if not t.state then return {'absent'} end
  return {'found', STATES[t.state], t.fence, t.deadline, t.since, t.holder}
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p and inspect(p, ARGV[i + 3]) or {'stale'}
end
return {now, {}, replies, 0}
