#!lua
-- generate: add tokens to pools, free; values that a pool has are left as they are. All or nothing against the cap.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, key or '', fingerprint, count, then count tokens
-- RETURNS  per item: {'added', positions of those that the pool had} | {'replayed', existing, tokens joined by \n} | {'full', max_tokens, total} | {'mismatch'} | {'again'} | {'stale'}
-- COST     O(tokens given)
-- RETRY    safe with a key: answers replayed; without one, import answers that they exist, generate adds others

local SWEEP_MAX = 1000 -- entries settled before the cap is believed to be reached

-- Splits the tokens given into those to add and the positions of those that are there, twice-named ones included.
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

local function generate(p, key, fingerprint, tokens)
  if key ~= '' then
    local first, answer = recall(p, 'generate', key)
    if first and first ~= fingerprint then return {'mismatch'} end
    if first then
      local existing, joined = string.match(answer, '^(%d+) (.*)$')
      return {'replayed', tonumber(existing), joined}
    end
  end
  local new, existing = sort_out(p, tokens)
  flush_pool(p) -- what fetch found idle no longer counts
  if #new > 0 and redis.call('HLEN', p.records) + #new > p.max_tokens then
    if settle_due(p, SWEEP_MAX) then return {'again'} end
    local total = redis.call('HLEN', p.records)
    if total + #new > p.max_tokens then return {'full', p.max_tokens, total} end
  end
  for _, token in ipairs(new) do
    local t = p.tokens[token]
    become_free(p, t, now)
    touch(p, token, t)
  end
  flush_pool(p)
  if key ~= '' then
    remember(p, 'generate', key, fingerprint, #existing .. ' ' .. table.concat(new, '\n'))
  end
  return {'added', existing}
end

local items, i = {}, 1 -- all are checked before the first write
while i <= #ARGV do
  local count = tonumber(ARGV[i + 5])
  if not count or i + 5 + count > #ARGV then error('count is not that of the tokens') end
  local tokens = {}
  for n = 1, count do tokens[n] = ARGV[i + 5 + n] end
  items[#items + 1] = {pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2]) or false, ARGV[i + 3], ARGV[i + 4], tokens}
  i = i + 6 + count
end

local replies = {}
for n, item in ipairs(items) do
  local p, key, fingerprint, tokens = unpack(item)
  replies[n] = p and generate(p, key, fingerprint, tokens) or {'stale'}
end
return finish(replies)
