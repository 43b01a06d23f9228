#!lua flags=allow-oom
-- keep_alive: give a held token's lease a new deadline, or restart a free token's idle clock.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, token, fence or 0, lifetime ms or 0
-- RETURNS  per item: {'kept', state, deadline_ms or 0} | {'not_held', state} | {'lease_lost'} | {'absent'} | {'stale'}
-- COST     O(1) per item
-- RETRY    safe: it restarts the same clock once more

local WIDTH = 6

-- Clamped to max_hold since the grant, but never to before what the holder was told; never past what is asked.
local function extend(p, t, lifetime)
  local deadline = now + (lifetime > 0 and lifetime or p.lifetime)
  local limit = math.max(t.since + p.max_hold, t.deadline)
  t.deadline = p.max_hold > 0 and math.min(deadline, limit) or deadline
end

local function keep_alive(p, token, fence, lifetime)
  local t = get(p, token)
  if not t.state then return {'absent'} end
  if fence > 0 and (t.state ~= HELD or t.fence ~= fence) then return {'lease_lost'} end
  if t.state == COOLING then return {'not_held', STATES[t.state]} end
  if t.waiter then return {'kept', STATES[t.state], t.deadline} end -- an offer is not a lease yet, and stays short
  if t.state == HELD then extend(p, t, lifetime) else become_free(p, t, now) end
  touch(p, token, t)
  tell(p, 'kept', token, t)
  return {'kept', STATES[t.state], t.deadline}
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p and keep_alive(p, ARGV[i + 3], tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
    or {'stale'}
end
return finish(replies)
