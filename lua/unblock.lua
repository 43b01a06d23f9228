#!lua flags=allow-oom
-- unblock: take each token back from its holder; it cools, then is free again.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, token, fence or 0, 'direct' (straight to free: nobody used it) or ''
-- RETURNS  per item: {'cooling', available_at_ms} | {'free', now_ms} | {'not_held', state} | {'lease_lost'} | {'absent'} | {'stale'}
-- COST     O(1) per item
-- RETRY    safe: a second unblock of the same fence answers lease_lost, of no fence not_held

local WIDTH = 6

local function unblock(p, token, fence, direct)
  local t = get(p, token)
  if not t.state then return {'absent'} end
  if fence > 0 and (t.state ~= HELD or t.fence ~= fence) then return {'lease_lost'} end
  if t.state ~= HELD then return {'not_held', STATES[t.state]} end
  local offered = t.waiter -- nobody has used it, and who was to have it waits on
  if offered then end_offer(p, t, true) end
  if direct or offered then become_free(p, t, now) else release(p, t, now) end
  touch(p, token, t)
  tell(p, 'unblocked', token, t)
  return {STATES[t.state], t.state == COOLING and t.deadline or now}
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p and unblock(p, ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5] == 'direct')
    or {'stale'}
end
return finish(replies)
