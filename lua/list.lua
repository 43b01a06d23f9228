#!lua flags=no-writes
-- list: one page of a pool's tokens, in no particular order; a token that is there throughout a walk is shown.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, state or '', cursor, after (the digest of the last token shown of what the cursor gives) or '', till (the cursor behind that) or '', limit
-- RETURNS  per item: {'page', next cursor or '', next after or '', next till or '', {token, state, fence, deadline_ms, since_ms, holder}…} | {'stale'}
-- COST     O(limit), at most ROUNDS_MAX times over when a state is rare
-- RETRY    safe: it writes nothing

local WIDTH = 8
local ROUNDS_MAX = 10 -- so that a rare state cannot make one call walk the whole pool

-- Whether one digest comes before another. Lua's own `<` goes by the server's locale.
local function before(one, other)
  for i = 1, #one do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return false
end

local function scan(p, state, cursor, count)
  local next_cursor, flat = unpack(redis.call('HSCAN', p.records, cursor, 'COUNT', count))
  local found = {}
  for i = 1, #flat, 2 do
    local token, t = flat[i], unpack_record(flat[i + 1])
    t.dirty = true -- shown as settled, never written
    settle(p, token, t)
    if t.state and (state == '' or STATES[t.state] == state) then
      found[#found + 1] = {token, STATES[t.state], t.fence, t.deadline, t.since, t.holder}
    end
  end
  return next_cursor, found
end

-- As much of what a cursor gives as fits a page. Redis gives more than it is asked for where a hash is small
-- (all of it at once) or a bucket long; asking for less makes the others fit.
local function fitting(p, state, cursor, limit)
  local count = math.ceil(limit / 2)
  while true do
    local next_cursor, found = scan(p, state, cursor, count)
    if #found <= limit or count == 1 then return next_cursor, found end
    local whole = cursor == '0' and next_cursor == '0'
    count = whole and 1 or math.floor(count / 2)
  end
end

-- What is left of a step that was cut, or nil where this is another step by now: the table was resized, or of its
-- buckets some were emptied or filled. Then of this step tokens before `after` may not have been shown.
local function rest(p, state, cursor, after, till)
  local next_cursor, found = scan(p, state, cursor, 1)
  if next_cursor ~= till then return nil end
  local left = {}
  for _, entry in ipairs(found) do
    if before(after, redis.sha1hex(entry[1])) then left[#left + 1] = entry end
  end
  return next_cursor, left
end

-- The first entries of a step in the order of their tokens' digests, and the last one's digest.
local function cut(found, limit)
  local digests = {}
  for _, entry in ipairs(found) do digests[entry] = redis.sha1hex(entry[1]) end
  table.sort(found, function(one, other) return before(digests[one], digests[other]) end)
  return {unpack(found, 1, limit)}, digests[found[limit]]
end

-- What one cursor gives is shown whole where it fits. Only the smallest step is cut, and then in the order of digests,
-- not of places: what is deleted between two pages moves the places of the others. A digest is short however long the
-- token is, and does not show it. Between the same two cursors lie the same tokens, whatever becomes of the table;
-- where they are no longer the same, a step is shown again.
local function list(p, state, cursor, after, till, limit)
  local page, shown = {'page', '', '', ''}, 0
  for _ = 1, ROUNDS_MAX do
    local next_cursor, found
    if after ~= '' then next_cursor, found = rest(p, state, cursor, after, till) end
    if not found then next_cursor, found = fitting(p, state, cursor, limit) end
    if shown + #found > limit then
      if shown > 0 then return page end
      local shown_now, last = cut(found, limit)
      for _, entry in ipairs(shown_now) do page[#page + 1] = entry end
      page[2], page[3], page[4] = cursor, last, next_cursor
      return page
    end
    for _, entry in ipairs(found) do page[#page + 1] = entry end
    shown, cursor, after = shown + #found, next_cursor, ''
    page[2] = cursor ~= '0' and cursor or ''
    if cursor == '0' or shown == limit then return page end
  end
  return page
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p
    and list(p, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7])) or {'stale'}
end
return {now, {}, replies, 0}
