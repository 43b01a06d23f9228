#!lua
-- reserve: keep room in a shard's share of the cap for tokens that a call over several shards is about to add.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, id, ms until it lapses or 0 (let it go now), tokens yet to be made, count, then count tokens of an import
-- RETURNS  per item: {'reserved', tokens, reserved by others, positions of those that the pool had} | {'let_go'} | {'again'} | {'stale'}
-- COST     O(tokens given), and O(reservations) a call, of which there are as many as calls under way
-- RETRY    safe: a reservation of the same id takes the place of the first

local SWEEP_MAX = 1000        -- entries settled before the cap is believed to be reached
local RESERVATIONS_MAX = 1000 -- of a shard: each call reads them all; more are told to come again

-- Tokens yet to be made can be fewer here and more in another shard; an import's lie here, all of them or none.
local function reserve(p, id, ms, wanted, tokens)
  if ms == 0 then
    let_go(p, id)
    return {'let_go'}
  end
  local new, existing = sort_out(p, tokens)
  flush_pool(p)
  local asked = wanted + #new
  if asked > room(p, id) and settle_due(p, SWEEP_MAX) then return {'again'} end
  local left, others = room(p, id)
  if asked > left then asked = #tokens > 0 and 0 or math.max(left, 0) end
  let_go(p, id)
  if asked > 0 then
    if redis.call('HLEN', p.reserved) >= RESERVATIONS_MAX then return {'again'} end
    p.holds[id], p.held_back = asked, p.held_back + asked
    local ends = now + ms
    redis.call('HSET', p.reserved, id, int(ends) .. ' ' .. asked)
    -- As long as the last of them. A time from now on would count from the start of the script, before `now`.
    if redis.call('PEXPIRETIME', p.reserved) <= ends then redis.call('PEXPIREAT', p.reserved, int(ends + 1)) end
  end
  return {'reserved', asked, others, existing}
end

local items, i = {}, 1 -- all are checked before the first write
while i <= #ARGV do
  local p, id = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2]), ARGV[i + 3]
  local ms, wanted, tokens = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), nil
  if not ms or not wanted then error('a number is none') end
  tokens, i = list_after(i + 6, tonumber(ARGV[i + 6]))
  items[#items + 1] = {p or false, id, ms, wanted, tokens}
end

local replies = {}
for n, item in ipairs(items) do
  local p, id, ms, wanted, tokens = unpack(item)
  replies[n] = p and reserve(p, id, ms, wanted, tokens) or {'stale'}
end
return finish(replies)
