-- prelude: what every script shares. It is put behind the first line of each when the service starts.
--
-- A call is one unit of work: tokens are read into `p.tokens` and settled, the script changes them there,
-- and `flush_pool` writes what changed, in bulk. So a script that fails before that has written nothing.

local FREE, HELD, COOLING = 1, 2, 3
local STATES = {'free', 'held', 'cooling'}
local TICK_MS = 100        -- width of a wheel bucket
local FINE_MS = 60000      -- a deadline further away than this waits in a bucket of a whole minute
local CALL_ARGS_MAX = 1000 -- arguments to one command: well under Lua's stack of 8,000
local SWEEP_STEP = 100     -- entries that a sweep takes at once
local BYTES_PER_ENTRY = 512 -- a longer token counts as several entries of a sweep's budget
local IDEM_WINDOW_S = 600  -- an idempotency key is found for at least this long
local OPERATION_WINDOWS = 4 -- a shard remembers an operation longer than its commit is found, whatever the clocks of two primaries say
local RECORD = '>BI7I6I5I6' -- state, fence, deadline ms, due tick, since ms; then the holder's label
local HAS_META = 16        -- added to a record's state: the token has a HASH of metadata
local OFFERED = 32         -- added to it: held for a waiter, whose id and a NUL stand before the label
local WAITER = '>I7I6'     -- ticket, ms until which it is alive; then the token offered or '', a NUL, the label
local OFFER_MS = 2000      -- a waiter not heard of for this long is dead, and what it was offered goes on
local QUEUE_MS = 10000     -- life of a queue that nobody asks about: long after its last waiter is dead
local HAND_OVER_MAX = 1000 -- waiters, dead or alive, that one call takes out of a queue

local PREFIX = KEYS[1]
local TURNS, ALARM, FENCE = PREFIX .. ':turns', PREFIX .. ':alarm', PREFIX .. ':fence'
local EVENTS, WAKES = PREFIX .. ':events', PREFIX .. ':wakes' -- channels, not keys
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
-- The first whole millisecond after this moment. A deadline counted from it lies at least the whole lifetime
-- away, so that a holder who counts from before asking is never surprised; and `at < now` is exactly "`at` has passed".
local now = math.floor(now_us / 1000) + 1

local pools = {}        -- name → pool, each read once per call
local rung = false      -- whether the wheel changed, so that the alarm may have to move
local woken = {}        -- waiters that this call has an offer for
local told = {}         -- lifecycle events, as JSON
local listened          -- whether anybody hears them; asked once, when there is the first

-- Whole numbers keep their digits (Lua prints 14 by itself; a fence has 16).
local function int(number) return string.format('%.0f', number) end

-- `count` arguments behind the one that says how many; the position of the one behind them.
local function list_after(i, count)
  if not count or i + count > #ARGV then error('a count is not that of what it counts') end
  local list = {}
  for n = 1, count do list[n] = ARGV[i + n] end
  return list, i + count + 1
end

local function bulk(command, key, args)
  for first = 1, #args, CALL_ARGS_MAX do
    redis.call(command, key, unpack(args, first, math.min(first + CALL_ARGS_MAX - 1, #args)))
  end
end

-- The shard of a pool that lies in this partition. `live` is false where it was never made, or is deleted.
local function pool(name)
  local p = pools[name]
  if p then return p end
  local key = PREFIX .. ':pool:' .. name
  local f = redis.call('HMGET', key, 'generation', 'version', 'lifetime', 'idle_limit', 'cooldown',
    'max_tokens', 'max_hold', 'on_lapse', 'born', 'gone')
  p = {
    name = name, key = key, live = f[1] and not f[10],
    generation = tonumber(f[1] or 0), version = tonumber(f[2] or 0),
    lifetime = tonumber(f[3] or 0), idle_limit = tonumber(f[4] or 0), cooldown = tonumber(f[5] or 0),
    max_tokens = tonumber(f[6] or 0), max_hold = tonumber(f[7] or 0), on_lapse = f[8],
    born = f[9], records = PREFIX .. ':records:' .. name, free = PREFIX .. ':free:' .. name,
    ticks = PREFIX .. ':ticks:' .. name, due = PREFIX .. ':due:' .. name .. ':',
    meta = PREFIX .. ':meta:' .. name .. ':', reserved = PREFIX .. ':reserved:' .. name,
    queue = PREFIX .. ':queue:' .. name, waiters = PREFIX .. ':waiters:' .. name,
    tokens = {}, dirty = {}, settled = {}, remembered = {}, ended = {}, handed = 0,
  }
  pools[name] = p
  return p
end

-- The pool that a caller means: nil if this shard does not know that generation, or only an older policy.
local function pool_for(name, generation, version)
  local p = pool(name)
  if p.live and p.generation == tonumber(generation) and p.version >= tonumber(version) then return p end
  return nil
end

local function touch(p, token, t)
  if not t.dirty then
    t.dirty = true
    p.dirty[#p.dirty + 1] = token
  end
end

-- Tells a transition to whoever listens, as it is about to be stored. `fence` where the token is gone by now.
-- Whoever may not publish (an ACL can say so) does without: no call fails for a hint's sake.
local function tell(p, event, token, t, fence)
  if listened == nil then
    local counted = redis.pcall('PUBSUB', 'SHARDNUMSUB', EVENTS)
    listened = not counted.err and counted[2] > 0
  end
  if not listened then return end
  told[#told + 1] = '{"pool":"' .. p.name .. '","token":' .. cjson.encode(token) .. ',"event":"' .. event
    .. '","state":"' .. (STATES[t.state] or 'absent') .. '","fence":' .. int(fence or t.fence)
    .. ',"deadline_ms":' .. int(t.deadline) .. '}'
end

-- The first of so many fences that nobody ever had.
local function reserve_fences(count)
  local first = math.max(tonumber(redis.call('GET', FENCE) or 0) + 1, now_us)
  redis.call('SET', FENCE, int(first + count - 1))
  return first
end

local function become_held(t, fence, holder, deadline)
  t.state, t.fence, t.since, t.holder, t.deadline = HELD, fence, now, holder, deadline
end

-- When a lease that begins now ends.
local function lease_end(p, lifetime)
  lifetime = lifetime > 0 and lifetime or p.lifetime
  return now + (p.max_hold > 0 and math.min(lifetime, p.max_hold) or lifetime)
end

-- An offer ends: its waiter has taken it or is dead, or (`stays`) waits on in its place.
local function end_offer(p, t, stays)
  p.ended[t.waiter] = stays and 'stays' or 'leaves'
  t.waiter = nil
end

local function become_free(p, t, since)
  t.state, t.since, t.holder = FREE, since, ''
  t.deadline = p.idle_limit > 0 and since + p.idle_limit or 0
end

-- A token leaves its holder: it cools, or is free at once.
local function release(p, t, since)
  if p.cooldown == 0 then return become_free(p, t, since) end
  t.state, t.since, t.holder, t.deadline = COOLING, since, '', since + p.cooldown
end

-- A token comes into being: free, or, where the policy says so, held from the start, under fence 1.
local function become_born(p, t, holder, lifetime)
  if p.born ~= 'held' then return become_free(p, t, now) end
  t.state, t.fence, t.since, t.holder = HELD, 1, now, holder
  t.deadline = now + (lifetime > 0 and lifetime or p.lifetime)
end

-- Its metadata goes with it.
local function become_absent(t)
  t.state, t.fence, t.deadline, t.since, t.holder, t.meta, t.fields = nil, 0, 0, 0, '', false, nil
end

-- Metadata to be written with the token: a flat list of names and values, none of which is parsed here.
local function set_fields(t, fields)
  if #fields == 0 then return end
  t.fields, t.meta = fields, true
end

local function note(p, kind, deadline)
  local lags = p.settled[kind]
  if not lags then lags = {} p.settled[kind] = lags end
  lags[#lags + 1] = now - 1 - deadline
end

-- Settle: a deadline that has passed has happened. Chains from deadlines, not from the time of the sweep.
local function settle(p, token, t)
  while t.state and t.deadline > 0 and t.deadline < now do
    local passed, fence = t.deadline, t.fence
    touch(p, token, t)
    if t.waiter then -- nobody has used it
      note(p, 'missed', passed)
      end_offer(p, t)
      become_free(p, t, passed)
      tell(p, 'missed', token, t)
    elseif t.state == HELD then
      note(p, 'lapsed', passed)
      if p.on_lapse == 'delete' then become_absent(t) else release(p, t, passed) end
      tell(p, 'lapsed', token, t, fence)
    elseif t.state == COOLING then
      note(p, 'cooled', passed)
      become_free(p, t, passed)
      tell(p, 'cooled', token, t)
    elseif p.idle_limit == 0 then
      t.deadline = 0 -- the limit was lifted meanwhile
    elseif t.since + p.idle_limit >= now then
      t.deadline = t.since + p.idle_limit -- the limit was raised meanwhile
    else
      note(p, 'idle', passed)
      become_absent(t)
      tell(p, 'idle', token, t, fence)
    end
  end
end

local function unpack_record(packed)
  if not packed then return {fence = 0, deadline = 0, due = 0, since = 0, holder = ''} end
  local state, fence, deadline, due, since, rest = struct.unpack(RECORD, packed)
  local holder, waiter = string.sub(packed, rest), nil
  if state >= OFFERED then
    state = state - OFFERED
    waiter, holder = string.match(holder, '^(%Z*)%z(.*)$')
  end
  local meta = state >= HAS_META
  if meta then state = state - HAS_META end
  return {
    state = state, stored = state, fence = fence, deadline = deadline, due = due, since = since,
    holder = holder, waiter = waiter, meta = meta, stored_meta = meta,
  }
end

local function pack_record(t)
  local state = t.meta and t.state + HAS_META or t.state
  local head = t.waiter and t.waiter .. '\0' or ''
  if t.waiter then state = state + OFFERED end
  return struct.pack(RECORD, state, t.fence, t.deadline, t.due, t.since) .. head .. t.holder
end

local function unpack_waiter(packed)
  local ticket, alive, rest = struct.unpack(WAITER, packed)
  local token, holder = string.match(string.sub(packed, rest), '^(%Z*)%z(.*)$')
  return {ticket = ticket, alive = alive, token = token, holder = holder}
end

local function pack_waiter(w)
  return struct.pack(WAITER, w.ticket, w.alive) .. w.token .. '\0' .. w.holder
end

-- Reads tokens that this call has not read yet, and settles them.
local function fetch(p, tokens)
  local missing = {}
  for _, token in ipairs(tokens) do
    if p.tokens[token] == nil then
      p.tokens[token] = false
      missing[#missing + 1] = token
    end
  end
  for first = 1, #missing, CALL_ARGS_MAX do
    local last = math.min(first + CALL_ARGS_MAX - 1, #missing)
    local packed = redis.call('HMGET', p.records, unpack(missing, first, last))
    for i = 1, #packed do
      local token = missing[first + i - 1]
      p.tokens[token] = unpack_record(packed[i])
      settle(p, token, p.tokens[token])
    end
  end
end

-- A token's metadata as it is stored: names and values in a flat list.
local function get_fields(p, token, t)
  return t.stored_meta and redis.call('HGETALL', p.meta .. token) or {}
end

-- One token as it stands now; its `state` is nil if it is absent.
local function get(p, token)
  fetch(p, {token})
  return p.tokens[token]
end

local function list_at(map, tick)
  local list = map[tick]
  if not list then list = {} map[tick] = list end
  return list
end

-- Puts a token's deadline on the wheel. An entry that comes up no later than the deadline is left where it
-- is: the sweep that meets it moves it on, so a keep-alive or a new lease touches only the record.
local function place(token, t, enter, leave)
  if t.deadline == 0 then return end
  local tick = math.ceil(t.deadline / TICK_MS)
  if t.deadline - now > FINE_MS then
    tick = math.floor(t.deadline / FINE_MS) * (FINE_MS / TICK_MS)
  end
  if t.due > 0 and t.due <= tick then return end
  if t.due > 0 then table.insert(list_at(leave, t.due), token) end
  table.insert(list_at(enter, tick), token)
  t.due = tick
end

local function flush_wheel(p, enter, leave)
  for tick, tokens in pairs(leave) do
    bulk('SREM', p.due .. int(tick), tokens)
    if redis.call('EXISTS', p.due .. int(tick)) == 0 then redis.call('ZREM', p.ticks, int(tick)) end
  end
  local index, lowest = {}, nil
  for tick, tokens in pairs(enter) do
    bulk('SADD', p.due .. int(tick), tokens)
    index[#index + 1], index[#index + 2] = int(tick), int(tick)
    if not lowest or tick < lowest then lowest = tick end
  end
  if lowest then
    bulk('ZADD', p.ticks, index)
    redis.call('ZADD', TURNS, 'LT', int(lowest), p.name)
    rung = true
  end
end

-- Whether anybody waits for a token of this pool; asked where one comes free, once a call.
local function queued(p)
  if p.queued == nil then p.queued = redis.call('EXISTS', p.queue) == 1 end
  return p.queued
end

-- Writes waiters, and puts them into the queue. What nobody asks about any more leaves by itself.
local function put_waiters(p, packed, tickets)
  bulk('HSET', p.waiters, packed)
  bulk('ZADD', p.queue, tickets)
  for _, key in ipairs({p.waiters, p.queue}) do redis.call('PEXPIRE', key, QUEUE_MS) end
  p.queued = true
end

-- Offers free tokens to those who have waited longest. The dead whom it meets leave the queue.
local function hand_over(p, tokens)
  local given, gone, kept = 0, {}, {}
  while given < #tokens and p.handed < HAND_OVER_MAX do
    local ids = redis.call('ZRANGE', p.queue, 0, math.min(#tokens - given, HAND_OVER_MAX - p.handed) - 1)
    if #ids == 0 then
      p.queued = false
      break
    end
    local packed, fence = redis.call('HMGET', p.waiters, unpack(ids)), reserve_fences(#ids)
    redis.call('ZREM', p.queue, unpack(ids))
    p.handed = p.handed + #ids
    for i, id in ipairs(ids) do
      local w = packed[i] and unpack_waiter(packed[i])
      if w and w.alive >= now then
        given = given + 1
        local token = tokens[given]
        local t = p.tokens[token]
        become_held(t, fence + i - 1, w.holder, w.alive) -- if it is alive, it is heard of before that
        t.waiter, w.token = id, token
        touch(p, token, t)
        tell(p, 'offered', token, t)
        kept[#kept + 1], kept[#kept + 2] = id, pack_waiter(w)
        woken[#woken + 1] = id
      else
        gone[#gone + 1] = id
      end
    end
  end
  bulk('HSET', p.waiters, kept) -- first: a key that HDEL empties forgets when it expires
  bulk('HDEL', p.waiters, gone)
end

-- Whose offer has ended leaves, or is put back into its place, with its ticket.
local function flush_offers(p)
  local leaving = {}
  for id, how in pairs(p.ended) do
    local packed = how == 'stays' and redis.call('HGET', p.waiters, id)
    if packed then
      local w = unpack_waiter(packed)
      w.token = ''
      put_waiters(p, {id, pack_waiter(w)}, {int(w.ticket), id})
    else
      leaving[#leaving + 1] = id
    end
  end
  bulk('HDEL', p.waiters, leaving)
  p.ended = {}
end

-- What has come free goes to whoever waits, in the script that frees it: nobody overtakes a waiter.
local function serve_queue(p)
  flush_offers(p)
  local freed = {}
  for _, token in ipairs(p.dirty) do
    local t = p.tokens[token]
    if t.state == FREE and t.stored ~= FREE then freed[#freed + 1] = token end
  end
  if #freed > 0 and queued(p) then hand_over(p, freed) end
end

-- Writes what this call changed in one pool.
local function flush_pool(p)
  if #p.dirty == 0 then return end
  serve_queue(p)
  local hset, hdel, sadd, srem, enter, leave = {}, {}, {}, {}, {}, {}
  local held = 0
  for _, token in ipairs(p.dirty) do
    local t = p.tokens[token]
    local was, is = t.stored, t.state
    if is == FREE and was ~= FREE then
      sadd[#sadd + 1] = token
    elseif is ~= FREE and (was == FREE or t.dangling) then
      srem[#srem + 1] = token
    end
    if was == HELD then held = held - 1 end
    if is == HELD then held = held + 1 end
    if is then
      place(token, t, enter, leave)
      hset[#hset + 1] = token
      hset[#hset + 1] = pack_record(t)
    elseif was then
      hdel[#hdel + 1] = token
      if t.due > 0 then table.insert(list_at(leave, t.due), token) end
      t.due = 0
    end
    if t.stored_meta and not t.meta then redis.call('UNLINK', p.meta .. token) end
    if t.fields then bulk('HSET', p.meta .. token, t.fields) end
    t.stored, t.stored_meta, t.fields, t.dangling, t.dirty = is, t.meta, nil, false, false
  end
  p.dirty = {}
  bulk('HSET', p.records, hset)
  bulk('HDEL', p.records, hdel)
  bulk('SREM', p.free, srem)
  bulk('SADD', p.free, sadd)
  if held ~= 0 then redis.call('HINCRBY', p.key, 'held', held) end
  flush_wheel(p, enter, leave)
end

-- Offers what lies free, where a call reached its bound before all who waited had an offer.
local function serve_free(p)
  flush_pool(p)
  if not queued(p) or p.handed >= HAND_OVER_MAX then return end
  local tokens = redis.call('SRANDMEMBER', p.free, HAND_OVER_MAX - p.handed)
  fetch(p, tokens)
  local free = {}
  for _, token in ipairs(tokens) do
    if p.tokens[token].state == FREE then free[#free + 1] = token end
  end
  hand_over(p, free)
  flush_pool(p)
end

-- Sets the alarm to the partition's next turn. Returns when that is (ms), 0 if nothing is pending.
-- Reading an alarm whose time has come makes Redis expire it, which rings for every replica.
local function ring()
  local first = redis.call('ZRANGE', TURNS, 0, 0, 'WITHSCORES')
  if not first[1] then return 0 end
  local turn = math.ceil(tonumber(first[2]) * TICK_MS)
  local at = math.max(turn, now + TICK_MS) -- behind schedule: ring soon, not without pause
  local set = tonumber(redis.call('GET', ALARM) or nil)
  if not set or set > at then redis.call('SET', ALARM, int(at), 'PXAT', int(at)) end
  return turn
end

-- What some tokens count of a sweep's budget: the work on a token grows with its length.
local function weight(tokens)
  local sum = 0
  for _, token in ipairs(tokens) do sum = sum + 1 + math.floor(#token / BYTES_PER_ENTRY) end
  return sum
end

-- Settles what is due in one pool, at most `budget` entries, fewer where tokens are long. Returns how many, and whether more are due.
local function sweep_pool(p, budget)
  local swept, spent, tick = 0, 0, nil
  while true do
    tick = tonumber(redis.call('ZRANGE', p.ticks, 0, 0)[1])
    if not tick or tick * TICK_MS >= now or spent >= budget then break end
    local ask = math.min(budget - spent, SWEEP_STEP)
    local tokens = redis.call('SPOP', p.due .. int(tick), ask)
    if #tokens < ask then redis.call('ZREM', p.ticks, int(tick)) end
    fetch(p, tokens)
    for _, token in ipairs(tokens) do
      local t = p.tokens[token]
      if t.stored and t.due == tick then -- else the entry is stale
        t.due = 0
        touch(p, token, t)
      end
    end
    flush_pool(p)
    swept, spent = swept + math.max(#tokens, 1), spent + math.max(weight(tokens), 1)
  end
  local more = tick and tick * TICK_MS < now
  if not tick then
    redis.call('ZREM', TURNS, p.name)
  else -- a pool that has more due goes behind the others that are
    redis.call('ZADD', TURNS, more and now_us / (TICK_MS * 1000) or int(tick), p.name)
  end
  rung = true
  return swept, more
end

-- Settles what is due in one pool to the millisecond: the bucket of this moment, which no sweep has come to
-- yet, included. Returns whether more may be due.
local function settle_due(p, budget)
  local _, more = sweep_pool(p, budget)
  local bucket = p.due .. int(math.ceil((now - 1) / TICK_MS))
  fetch(p, redis.call('SRANDMEMBER', bucket, budget))
  flush_pool(p)
  return more or redis.call('SCARD', bucket) > budget
end

-- Deletes some tokens of a flow with their metadata. Returns whether they were all.
local function drop_some(p)
  local tokens = redis.call('HRANDFIELD', p.records, CALL_ARGS_MAX)
  for _, token in ipairs(tokens) do redis.call('UNLINK', p.meta .. token) end
  bulk('HDEL', p.records, tokens)
  return redis.call('EXISTS', p.records) == 0
end

-- Unlinks what a pool has in this partition, a bounded number of keys at a time. Returns whether that was all.
-- Only the flows' tokens have metadata, and only the flows' pools have names that start with `_`.
local function drop_pool(p)
  if string.sub(p.name, 1, 1) == '_' and not drop_some(p) then return false end
  redis.call('UNLINK', p.free, p.records, p.queue, p.waiters, p.reserved)
  local window = math.floor(now / 1000 / IDEM_WINDOW_S)
  for w = window - OPERATION_WINDOWS + 1, window do redis.call('UNLINK', PREFIX .. ':idem:' .. int(w) .. ':' .. p.name) end
  local keys = redis.call('ZRANGE', p.ticks, 0, CALL_ARGS_MAX - 1)
  for i, tick in ipairs(keys) do keys[i] = p.due .. tick end
  if #keys > 0 then
    redis.call('UNLINK', unpack(keys))
    redis.call('ZREMRANGEBYRANK', p.ticks, 0, CALL_ARGS_MAX - 1)
  end
  if redis.call('EXISTS', p.ticks) == 1 then return false end
  redis.call('ZREM', TURNS, p.name)
  return true
end

-- Splits the tokens given into those that are new here and the positions of those that are there, twice-named ones included.
local function sort_out(p, tokens)
  fetch(p, tokens)
  local new, existing, seen = {}, {}, {}
  for i, token in ipairs(tokens) do
    if p.tokens[token].state or seen[token] then
      existing[#existing + 1] = i
    else
      new[#new + 1], seen[token] = token, true
    end
  end
  return new, existing
end

-- Room that calls over several shards have reserved here: id → tokens. What has lapsed counts no more.
local function reservations(p)
  if p.holds then return p.holds end
  p.holds, p.held_back = {}, 0
  local flat = redis.call('HGETALL', p.reserved)
  for i = 1, #flat, 2 do
    local deadline, count = string.match(flat[i + 1], '^(%d+) (%d+)$')
    if tonumber(deadline) < now then
      redis.call('HDEL', p.reserved, flat[i])
    else
      p.holds[flat[i]] = tonumber(count)
      p.held_back = p.held_back + tonumber(count)
    end
  end
  return p.holds
end

-- How many more tokens may come in under this reservation (or none, ''), and what others have reserved.
local function room(p, id)
  local own = reservations(p)[id] or 0
  local others = p.held_back - own
  return p.max_tokens - redis.call('HLEN', p.records) - others, others
end

local function let_go(p, id)
  local count = reservations(p)[id]
  if not count then return end
  p.holds[id], p.held_back = nil, p.held_back - count
  redis.call('HDEL', p.reserved, id)
end

-- What an idempotency key was answered with, in this window or the one before (or so many): fingerprint and answer, or nil.
local function recall(p, verb, key, windows)
  local said = p.remembered[verb .. ':' .. key]
  if said then return said[1], said[2] end
  local window = math.floor(now / 1000 / IDEM_WINDOW_S)
  for w = window, window - (windows or 2) + 1, -1 do
    local kept = redis.call('HGET', PREFIX .. ':idem:' .. int(w) .. ':' .. p.name, verb .. ':' .. key)
    if kept then return string.match(kept, '^(%S*) (.*)$') end
  end
  return nil
end

-- The grant that an assign of a key was answered with, as it is now; nil if its lease has ended.
local function replay(p, kept)
  local fence, token = string.match(kept, '^(%d+) (.*)$')
  local t = get(p, token)
  if t.state ~= HELD or t.fence ~= tonumber(fence) then return nil end
  return {'granted', token, t.fence, t.deadline, t.holder}
end

local function remember(p, verb, key, fingerprint, answer, windows)
  p.remembered[verb .. ':' .. key] = {fingerprint, answer}
  p.windows = math.max(p.windows or 2, windows or 2)
end

-- After `flush_pool`: an answer is remembered only once what it tells is written.
local function flush_remembered(p)
  local window, args = PREFIX .. ':idem:' .. int(math.floor(now / 1000 / IDEM_WINDOW_S)) .. ':' .. p.name, {}
  for field, said in pairs(p.remembered) do
    args[#args + 1] = field
    args[#args + 1] = said[1] .. ' ' .. said[2]
  end
  bulk('HSET', window, args)
  if #args == 0 then return end
  redis.call('EXPIRE', window, p.windows * IDEM_WINDOW_S, 'NX')
  if p.windows > 2 then redis.call('EXPIRE', window, p.windows * IDEM_WINDOW_S, 'GT') end
end

-- Writes everything, and answers: Redis's clock, what was settled on the way, one reply per item, the next turn.
local function finish(replies)
  local settled, turn = {}, 0
  for name, p in pairs(pools) do
    flush_pool(p)
    flush_remembered(p)
    for kind, lags in pairs(p.settled) do settled[#settled + 1] = {name, kind, lags} end
  end
  if rung then turn = ring() end
  if #woken > 0 then redis.pcall('SPUBLISH', WAKES, table.concat(woken, ' ')) end
  if #told > 0 then
    redis.pcall('SPUBLISH', EVENTS, '{"at_ms":' .. int(now) .. ',"events":[' .. table.concat(told, ',') .. ']}')
  end
  return {now, settled, replies, turn}
end
