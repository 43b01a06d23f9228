#!lua
-- generate: add tokens to pools, free or, by policy, held; those that a pool has are left as they are. All or nothing against the cap.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, key or '', fingerprint, reservation or '', holder or '', lifetime ms or 0, fields, then so many names and values of metadata, count, then count tokens
-- RETURNS  per item: {'added', positions of those that the pool had, expires_at_ms of a token born held or 0} | {'replayed', existing, tokens joined by \n} | {'full', max_tokens, total, reserved by others} | {'mismatch'} | {'again'} | {'stale'}
-- COST     O(tokens given)
-- RETRY    safe with a key: answers replayed; without one, import answers that they exist, generate adds others

local SWEEP_MAX = 1000 -- entries settled before the cap is believed to be reached

-- Under a reservation the key is the operation's: each of its shards remembers what it did.
local function generate(p, key, fingerprint, reservation, born, tokens)
  local windows = reservation ~= '' and OPERATION_WINDOWS or nil
  if key ~= '' then
    local first, answer = recall(p, 'generate', key, windows)
    if first and first ~= fingerprint then return {'mismatch'} end
    if first then
      let_go(p, reservation)
      local existing, joined = string.match(answer, '^(%d+) (.*)$')
      return {'replayed', tonumber(existing), joined}
    end
  end
  local new, existing = sort_out(p, tokens)
  flush_pool(p) -- what fetch found idle no longer counts
  if #new > 0 and #new > room(p, reservation) then
    if settle_due(p, SWEEP_MAX) then return {'again'} end
    local left, others = room(p, reservation)
    if #new > left then return {'full', p.max_tokens, redis.call('HLEN', p.records), others} end
  end
  local expires_at = 0
  for _, token in ipairs(new) do
    local t = p.tokens[token]
    become_born(p, t, born.holder, born.lifetime)
    set_fields(t, born.fields)
    touch(p, token, t)
    tell(p, 'generated', token, t)
    if t.state == HELD then expires_at = t.deadline end
  end
  flush_pool(p)
  let_go(p, reservation)
  if key ~= '' then
    remember(p, 'generate', key, fingerprint, #existing .. ' ' .. table.concat(new, '\n'), windows)
  end
  return {'added', existing, expires_at}
end

local items, i = {}, 1 -- all are checked before the first write
while i <= #ARGV do
  local born, tokens = {holder = ARGV[i + 6], lifetime = tonumber(ARGV[i + 7])}, nil
  if not born.lifetime then error('lifetime is not a number') end
  local p, key, fingerprint = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4]
  local reservation = ARGV[i + 5]
  born.fields, i = list_after(i + 8, 2 * tonumber(ARGV[i + 8]))
  tokens, i = list_after(i, tonumber(ARGV[i]))
  items[#items + 1] = {p or false, key, fingerprint, reservation, born, tokens}
end

local replies = {}
for n, item in ipairs(items) do
  local p, key, fingerprint, reservation, born, tokens = unpack(item)
  replies[n] = p and generate(p, key, fingerprint, reservation, born, tokens) or {'stale'}
end
return finish(replies)
