#!lua
-- assign: grant a free token of a pool, at random or the one named, until its deadline.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, key or '', fingerprint, holder or '', lifetime ms or 0, token or ''
-- RETURNS  per item: {'granted', token, fence, expires_at_ms, holder} | {'empty', retry_at_ms or 0} | {'not_free', state, retry_at_ms} | {'absent'} | {'lease_lost'} | {'mismatch'} | {'again'} | {'stale'}
-- COST     O(1) per item; with no free token, what is due in the pool, at most SWEEP_MAX entries a call
-- RETRY    safe with a key: answers the grant as it is now; without one it is another grant

local WIDTH = 8
local SWEEP_MAX = 1000   -- entries settled in one call before the answer is 'again'
local REFILL_MAX = 1000  -- free tokens looked at in one call, most of which could be idle ones
local HINT_TICKS, HINT_TOKENS = 8, 16 -- how far the Retry-After hint looks ahead

-- The next moment at which a token may be free: the first cooling one, else the first held one. A hint.
local function soonest(p)
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
  return cooling or held or 0
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
    p.hint = p.hint or soonest(p)
    return nil, {'empty', p.hint}
  end
  local t = get(p, token)
  if t.state == FREE and t.stored ~= FREE then flush_pool(p) end -- just come free: first to whoever waits
  if t.state == FREE then return token end
  if not t.state then return nil, {'absent'} end
  return nil, {'not_free', STATES[t.state], t.deadline + (t.state == HELD and p.cooldown or 0)}
end

local fence -- the next one; all that this call may grant are reserved before the first
local function assign(p, key, fingerprint, holder, lifetime, wish)
  if key ~= '' then
    local first, kept = recall(p, 'assign', key)
    if first and first ~= fingerprint then return {'mismatch'} end
    if first then return replay(p, kept) or {'lease_lost'} end
  end
  local token, refusal = pick(p, wish)
  if not token then return refusal end
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
  if not lifetime then error('lifetime is not a number') end
  if p then
    p.ready, p.looked = p.ready or {}, 0
    p.wanted = (p.wanted or 0) + (ARGV[i + 7] == '' and 1 or 0)
  end
  items[#items + 1] = {p, i, lifetime}
end
fence = reserve_fences(#items)

local replies = {}
for n, item in ipairs(items) do
  local p, i, lifetime = item[1], item[2], item[3]
  replies[n] = p and assign(p, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], lifetime, ARGV[i + 7])
    or {'stale'}
end
return finish(replies)
