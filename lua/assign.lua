#!lua
-- assign: grant a free token of a pool, at random or the one named, until its deadline.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, key or '', fingerprint, holder or '', lifetime ms or 0, token or '', round of the key's walk over the pool's shards or 0, 'elsewhere' (the token lies in another shard) or ''
-- RETURNS  per item: {'granted', token, fence, expires_at_ms, holder} | {'empty', first end of cooling ms or 0, first lapse ms or 0} | {'passed', round, end of cooling, lapse} | {'not_free', state, retry_at_ms} | {'absent'} | {'lease_lost'} | {'mismatch'} | {'again'} | {'stale'}
-- COST     O(1) per item; with no free token, what is due in the pool, at most SWEEP_MAX entries a call
-- RETRY    safe with a key: answers the grant as it is now, or passed where it found nothing; without one it is another grant

local WIDTH = 10
local SWEEP_MAX = 1000   -- entries settled in one call before the answer is 'again'
local REFILL_MAX = 1000  -- free tokens looked at in one call, most of which could be idle ones
local HINT_TICKS, HINT_TOKENS = 8, 16 -- how far the Retry-After hint looks ahead

-- The next moments at which a token may be free: when the first has cooled, when the first lapses; 0 for none. Hints.
local function soonest(p)
  if p.hint then return unpack(p.hint) end
  local cooling, held
  for _, tick in ipairs(redis.call('ZRANGE', p.ticks, 0, HINT_TICKS - 1)) do
    local tokens = redis.call('SRANDMEMBER', p.due .. tick, HINT_TOKENS)
    fetch(p, tokens)
    for _, token in ipairs(tokens) do
      local t = p.tokens[token]
      if t.state == COOLING then cooling = math.min(cooling or t.deadline, t.deadline) end
      if t.state == HELD then held = math.min(held or t.deadline, t.deadline) end
    end
  end
  p.hint = {cooling or 0, held or 0}
  return unpack(p.hint)
end

-- A free token out of the free set, or nil and why there is none.
local function take(p)
  while true do
    while #p.ready > 0 do
      local token = table.remove(p.ready)
      if p.tokens[token].state == FREE then return token end
    end
    if p.empty then return nil, 'empty' end
    if p.looked >= REFILL_MAX then return nil, 'again' end
    serve_free(p) -- also: what was taken or found idle must not be found again
    if p.handed >= HAND_OVER_MAX and queued(p) then return nil, 'again' end
    p.ready = redis.call('SRANDMEMBER', p.free, math.max(p.wanted, 1))
    p.looked = p.looked + #p.ready
    fetch(p, p.ready)
    for _, token in ipairs(p.ready) do
      local t = p.tokens[token]
      if t.stored ~= FREE then -- a dangling member: nothing writes one, but it must not hide the others
        t.dangling = true
        touch(p, token, t)
      end
    end
    if #p.ready == 0 then
      if p.swept and p.more then return nil, 'again' end
      if p.swept then
        p.empty = true -- for the items behind this one too: in one call nothing more falls due
      else
        p.swept, p.more = true, settle_due(p, SWEEP_MAX)
      end
    end
  end
end

local function pick(p, token)
  if token == '' then
    local taken, why = take(p)
    p.wanted = p.wanted - 1
    if taken then return taken end
    if why == 'again' then return nil, {'again'} end
    return nil, {'empty', soonest(p)}
  end
  local t = get(p, token)
  if t.state == FREE and t.stored ~= FREE then flush_pool(p) end -- just come free: first to whoever waits
  if t.state == FREE then return token end
  if not t.state then return nil, {'absent'} end
  return nil, {'not_free', STATES[t.state], t.deadline + (t.state == HELD and p.cooldown or 0)}
end

-- What a key's walk over several shards must know here: a shard that it has passed in this round never grants in it,
-- so that there is one grant however many walk at once. Written anew, for it must last as long as a grant made behind it.
local function pass(p, key, round)
  remember(p, 'assign', key, '', int(round))
  if redis.call('SCARD', p.free) > 0 then return {'passed', round, now, 0} end
  return {'passed', round, soonest(p)}
end

local fence -- the next one; all that this call may grant are reserved before the first
local function assign(p, key, fingerprint, holder, lifetime, wish, round, elsewhere)
  if key ~= '' then
    local first, kept = recall(p, 'assign', key)
    if first == '' and tonumber(kept) >= round then return pass(p, key, tonumber(kept)) end
    if first and first ~= '' then
      if first ~= fingerprint then return {'mismatch'} end
      return replay(p, kept) or {'lease_lost'}
    end
    if elsewhere then return pass(p, key, round) end
  end
  local token, refusal = pick(p, wish)
  if not token then
    if round > 0 and refusal[1] == 'empty' then pass(p, key, round) end
    return refusal
  end
  local t = p.tokens[token]
  become_held(t, fence, holder, lease_end(p, lifetime))
  touch(p, token, t)
  tell(p, 'granted', token, t)
  fence = fence + 1
  if key ~= '' then remember(p, 'assign', key, fingerprint, int(t.fence) .. ' ' .. token) end
  return {'granted', token, t.fence, t.deadline, holder}
end

local items = {} -- all are checked before the first write
for i = 1, #ARGV, WIDTH do
  local p, lifetime = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2]), tonumber(ARGV[i + 6])
  local round = tonumber(ARGV[i + 8])
  if not lifetime or not round then error('a number is none') end
  if p then
    p.ready, p.looked = p.ready or {}, 0
    p.wanted = (p.wanted or 0) + (ARGV[i + 7] == '' and 1 or 0)
  end
  items[#items + 1] = {p, i, lifetime, round}
end
fence = reserve_fences(#items)

local replies = {}
for n, item in ipairs(items) do
  local p, i, lifetime, round = item[1], item[2], item[3], item[4]
  replies[n] = p and assign(p, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], lifetime, ARGV[i + 7], round, ARGV[i + 9] == 'elsewhere')
    or {'stale'}
end
return finish(replies)
