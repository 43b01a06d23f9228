#!lua flags=no-writes
-- list: one page of a pool's tokens, in no particular order; a token that is there throughout a walk is shown.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, state or '', cursor, skip (of what the cursor gives), limit
-- RETURNS  per item: {'page', next cursor or '', next skip, {token, state, fence, deadline_ms, since_ms, holder}…} | {'stale'}
-- COST     O(limit), at most ROUNDS_MAX times over when a state is rare
-- RETRY    safe: it writes nothing

local WIDTH = 7
local ROUNDS_MAX = 10 -- so that a rare state cannot make one call walk the whole pool

local function list(p, state, cursor, skip, limit)
  local page = {'page', '', 0}
  for _ = 1, ROUNDS_MAX do
    local next_cursor, flat = unpack(redis.call('HSCAN', p.records, cursor, 'COUNT', limit))
    for i = 2 * skip + 1, #flat, 2 do
      local t = unpack_record(flat[i + 1])
      t.dirty = true -- shown as settled, never written
      settle(p, flat[i], t)
      if t.state and (state == '' or STATES[t.state] == state) then
        page[#page + 1] = {flat[i], STATES[t.state], t.fence, t.deadline, t.since, t.holder}
      end
      if #page - 3 == limit and i + 1 < #flat then
        page[2], page[3] = cursor, (i + 1) / 2
        return page
      end
    end
    cursor, skip = next_cursor, 0
    if cursor == '0' then return page end
    page[2] = cursor
    if #page - 3 == limit then return page end
  end
  return page
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  local p = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  replies[#replies + 1] = p
    and list(p, ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])) or {'stale'}
end
return {now, {}, replies, 0}
