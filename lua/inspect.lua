#!lua flags=no-writes
-- inspect: tell how each token stands now, every deadline that has passed counted as happened.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, token, 'meta' (with its metadata) or ''
-- RETURNS  per item: {'found', state, fence or 0, deadline_ms or 0, since_ms, holder or '', metadata} | {'absent'} | {'stale'}
-- COST     O(1) per item, and O(fields) where metadata is asked for
-- RETRY    safe: it writes nothing

local WIDTH = 5

local function inspect(p, token, with_meta)
  local t = get(p, token)
  if not t.state then return {'absent'} end
  local fields = with_meta and get_fields(p, token, t) or {}
  return {'found', STATES[t.state], t.fence, t.deadline, t.since, t.holder, fields}
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p and inspect(p, ARGV[i + 3], ARGV[i + 4] == 'meta') or {'stale'}
end
return {now, {}, replies, 0}
