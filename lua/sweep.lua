#!lua flags=allow-oom
-- sweep: settle the tokens of this partition whose ticks have passed, a bounded number, pools taking turns.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[1]  budget    most entries to settle
-- RETURNS  once: {'swept', entries, 1 if more are due else 0}
-- COST     O(1) per entry that fell due; O(log pools) when nothing is
-- RETRY    safe: a second sweep finds the rest

local POOLS_MAX = 16 -- pools that share one call's budget; the others' turn is next

local budget = tonumber(ARGV[1])
local due = redis.call('ZRANGE', TURNS, '-inf', now_us / (TICK_MS * 1000), 'BYSCORE', 'LIMIT', 0, POOLS_MAX)
local share = math.ceil(budget / math.max(#due, 1))
local swept, more = 0, #due == POOLS_MAX
for _, name in ipairs(due) do
  local p = pool(name)
  if p.live then
    local entries, rest = sweep_pool(p, share)
    swept, more = swept + entries, more or rest
  elseif not drop_pool(p) then
    more = true
  end
end
rung = true
return finish({{'swept', swept, more and 1 or 0}})
