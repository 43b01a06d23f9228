#!lua flags=allow-oom
-- exchange: rotate a family's token: its number goes up by one, and only the new number is good from here on.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, family, number, retry ms, grace ms, 'renew' (a full lifetime from now) or 'keep', 'revoke' (the family, if a used token comes back) or '', fields, then so many names and values to merge into its metadata
-- RETURNS  per item: {'rotated', number, deadline_ms, holder, metadata} | {'replayed', number, deadline_ms, holder, metadata} | {'spent'} | {'reused'} | {'too_large'} | {'absent'} | {'again'} | {'stale'}
-- COST     O(fields) per item; a call that has read META_BYTES_CALL_MAX bytes reads no further item
-- RETRY    safe within retry ms, until the successor is exchanged: answers replayed, with the token that the first call made

local META_BYTES_MAX = 65536
local META_BYTES_CALL_MAX = 4 * META_BYTES_MAX -- read in one call before the answer is 'again': 30 ms of many small fields
local FIELD_BYTES = 4 -- two quotes, a colon and a comma: a metadata object is counted as JSON without spaces
-- Within the grace a used token is refused and nothing is revoked: it may be a retry that another one overtook. Only
-- this many numbers back: a thief who rotates all the time would else keep the rightful holder within the grace for ever.
local FORGIVEN = 8

local bytes_read = 0
local function size(fields)
  local bytes = 1
  for i = 1, #fields, 2 do bytes = bytes + #fields[i] + #fields[i + 1] + FIELD_BYTES end
  bytes_read = bytes_read + bytes
  return bytes
end

-- What the metadata becomes, and its size. Neither names nor values are looked into.
local function merge(p, family, t, fields)
  local merged, place = get_fields(p, family, t), {}
  for i = 1, #merged, 2 do place[merged[i]] = i end
  for i = 1, #fields, 2 do
    local at = place[fields[i]] or #merged + 1
    merged[at], merged[at + 1], place[fields[i]] = fields[i], fields[i + 1], at
  end
  return merged, size(merged)
end

local function exchange(p, family, number, asked)
  if bytes_read >= META_BYTES_CALL_MAX then return {'again'} end
  local t = get(p, family)
  if t.state ~= HELD or number > t.fence then return {'absent'} end
  if t.fields then flush_pool(p) end -- an earlier item of this call changed them
  if number == t.fence then
    local merged, bytes = merge(p, family, t, asked.fields)
    if #asked.fields > 0 and bytes > META_BYTES_MAX then return {'too_large'} end
    t.fence, t.since = t.fence + 1, now
    if asked.renew then t.deadline = now + p.lifetime end
    set_fields(t, asked.fields)
    touch(p, family, t)
    tell(p, 'rotated', family, t)
    return {'rotated', t.fence, t.deadline, t.holder, merged}
  end
  local age = now - t.since
  -- The current number was never exchanged, so its predecessor may be the retry of a caller whose answer got lost.
  if number == t.fence - 1 and age <= asked.retry then
    local fields = get_fields(p, family, t)
    size(fields)
    return {'replayed', t.fence, t.deadline, t.holder, fields}
  end
  if not asked.revoke or (age <= asked.grace and number >= t.fence - FORGIVEN) then return {'spent'} end
  local last = t.fence
  become_absent(t)
  touch(p, family, t)
  tell(p, 'deleted', family, t, last)
  return {'reused'}
end

local items, i = {}, 1 -- all are checked before the first write
while i <= #ARGV do
  local p, family, number = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2]), ARGV[i + 3], tonumber(ARGV[i + 4])
  local asked = {
    retry = tonumber(ARGV[i + 5]), grace = tonumber(ARGV[i + 6]), renew = ARGV[i + 7] == 'renew', revoke = ARGV[i + 8] == 'revoke',
  }
  if not number or not asked.retry or not asked.grace then error('expected a number') end
  asked.fields, i = list_after(i + 9, 2 * tonumber(ARGV[i + 9]))
  items[#items + 1] = {p or false, family, number, asked}
end

local replies = {}
for n, item in ipairs(items) do
  local p, family, number, asked = unpack(item)
  replies[n] = p and exchange(p, family, number, asked) or {'stale'}
end
return finish(replies)
