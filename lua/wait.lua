#!lua
-- wait: keep waiters in line for a token of their pool, and let each take up what it was offered.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, key or '', fingerprint, holder or '', lifetime ms or 0, waiter, 'wait' | 'leave' (with what it is offered, if anything) | 'abandon' (nobody is there any more), ticket that it was given or 0, token that it was offered or '', its fence or 0
-- RETURNS  per item: {'granted', token, fence, expires_at_ms, holder} | {'offered', token, fence} | {'waiting', ticket} | {'full'} | {'left'} | {'lease_lost'} | {'mismatch'} | {'stale'}
-- COST     O(log waiters) per item; per call at most HAND_OVER_MAX waiters looked at, twice over where a queue is full
-- RETRY    safe: a waiter is in line once, and an offer that was taken is found by its fence

local WIDTH = 12
local WAITERS_MAX = 10000 -- in line for one pool in one partition: each asks every second, all of them some 5 % of Redis

-- The lease begins now: until here nobody had the token.
local function take_up(p, item, token, t)
  p.known[item.waiter] = false
  end_offer(p, t)
  become_held(t, t.fence, item.holder, lease_end(p, item.lifetime))
  touch(p, token, t)
  tell(p, 'granted', token, t)
  if item.key ~= '' then remember(p, 'assign', item.key, item.fingerprint, int(t.fence) .. ' ' .. token) end
  return {'granted', token, t.fence, t.deadline, t.holder}
end

-- Straight to free, or to the next in line: nobody has used it.
local function give_back(p, item, token, t)
  p.known[item.waiter] = false
  if t.waiter then end_offer(p, t) end
  become_free(p, t, now)
  touch(p, token, t)
  tell(p, 'unblocked', token, t)
end

local function leave(p, item)
  if p.known[item.waiter] then p.known[item.waiter], p.changed[item.waiter] = false, true end
  return {'left'}
end

-- Those of a full queue of whom nothing was heard for too long make room.
local function drop_dead(p)
  p.dropped = true
  local ids = redis.call('ZRANGE', p.queue, 0, HAND_OVER_MAX - 1)
  local packed = #ids > 0 and redis.call('HMGET', p.waiters, unpack(ids)) or {}
  for i, id in ipairs(ids) do
    local w = packed[i] and unpack_waiter(packed[i])
    if not p.known[id] and not (w and w.alive >= now) then
      p.known[id], p.changed[id], p.count = false, true, p.count - 1
    end
  end
end

local fence -- the next one: a ticket is one too, so no two waiters have the same
local function line_up(p, item)
  local w = p.known[item.waiter]
  if not w then
    p.count = p.count or redis.call('HLEN', p.waiters)
    if p.count >= WAITERS_MAX and not p.dropped then drop_dead(p) end
    if p.count >= WAITERS_MAX then return {'full'} end
    p.count = p.count + 1
    w = {ticket = item.ticket > 0 and item.ticket or fence}
    fence = fence + 1
    p.known[item.waiter] = w
  end
  w.alive, w.token, w.holder = now + OFFER_MS, '', item.holder
  p.changed[item.waiter], p.ended[item.waiter] = true, nil
  return {'waiting', w.ticket}
end

local function wait(p, item)
  local w = p.known[item.waiter]
  local offered = w and w.token ~= '' and get(p, w.token)
  if offered and offered.waiter ~= item.waiter then offered = nil end -- it was deleted, or is past
  if item.key ~= '' then
    local first, kept = recall(p, 'assign', item.key)
    if first and first ~= item.fingerprint then return {'mismatch'} end
    if first then -- another request of this key has been granted it
      if offered then give_back(p, item, w.token, offered) else leave(p, item) end
      return replay(p, kept) or {'lease_lost'}
    end
  end
  local taken = item.token ~= '' and get(p, item.token)
  if taken and taken.state == HELD and taken.fence == item.fence then
    if item.how == 'abandon' then
      give_back(p, item, item.token, taken)
      return {'left'}
    end
    if taken.waiter then return take_up(p, item, item.token, taken) end
    return {'granted', item.token, taken.fence, taken.deadline, taken.holder}
  end
  if offered and item.how == 'wait' then
    offered.deadline = now + OFFER_MS
    touch(p, w.token, offered)
    return {'offered', w.token, offered.fence}
  end
  if offered and item.how == 'leave' then return take_up(p, item, w.token, offered) end
  if offered then
    give_back(p, item, w.token, offered)
    return {'left'}
  end
  if item.how ~= 'wait' then return leave(p, item) end
  return line_up(p, item)
end

-- What is known of the waiters that this call names.
local function read_waiters(p)
  p.known, p.changed = {}, {}
  for first = 1, #p.named, CALL_ARGS_MAX do
    local last = math.min(first + CALL_ARGS_MAX - 1, #p.named)
    local packed = redis.call('HMGET', p.waiters, unpack(p.named, first, last))
    for i = 1, #packed do p.known[p.named[first + i - 1]] = packed[i] and unpack_waiter(packed[i]) end
  end
end

local function write_waiters(p)
  local packed, tickets, gone = {}, {}, {}
  for id in pairs(p.changed) do
    local w = p.known[id]
    if w then
      packed[#packed + 1], packed[#packed + 2] = id, pack_waiter(w)
      tickets[#tickets + 1], tickets[#tickets + 2] = int(w.ticket), id
    else
      gone[#gone + 1] = id
    end
  end
  if #packed > 0 then put_waiters(p, packed, tickets) end
  bulk('HDEL', p.waiters, gone)
  bulk('ZREM', p.queue, gone)
end

local items, asked = {}, {} -- all are checked before the first write
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  local item = {
    key = ARGV[i + 3], fingerprint = ARGV[i + 4], holder = ARGV[i + 5], lifetime = tonumber(ARGV[i + 6]),
    waiter = ARGV[i + 7], how = ARGV[i + 8], ticket = tonumber(ARGV[i + 9]), token = ARGV[i + 10],
    fence = tonumber(ARGV[i + 11]),
  }
  if not (item.lifetime and item.ticket and item.fence) then error('a number is none') end
  items[#items + 1] = {p, item}
  if p then
    if not p.named then p.named, asked[#asked + 1] = {}, p end
    p.named[#p.named + 1] = item.waiter
  end
end
fence = reserve_fences(#items)
for _, p in ipairs(asked) do read_waiters(p) end

local replies = {}
for n, item in ipairs(items) do
  local p = item[1]
  replies[n] = p and wait(p, item[2]) or {'stale'}
end
for _, p in ipairs(asked) do
  write_waiters(p)
  serve_free(p)
end
return finish(replies)
