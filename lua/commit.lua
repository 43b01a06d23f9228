#!lua
-- commit: decide, for all who come with one idempotency key, which tokens an addition over several shards is about.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[…]  items     pool, generation, version, key, fingerprint, operation or '' (only look), tokens that the pool had, count, then count tokens
-- RETURNS  per item: {'committed'} | {'none'} | {'found', operation, existing, tokens joined by \n} | {'mismatch'} | {'stale'}
-- COST     O(tokens given)
-- RETRY    safe: answers found, with what the first call decided

local function commit(p, key, fingerprint, operation, existing, tokens)
  local first, kept = recall(p, 'commit', key)
  if first and first ~= fingerprint then return {'mismatch'} end
  if first then
    local found, had, joined = string.match(kept, '^(%S+) (%d+) (.*)$')
    return {'found', found, tonumber(had), joined}
  end
  if operation == '' then return {'none'} end
  remember(p, 'commit', key, fingerprint, operation .. ' ' .. existing .. ' ' .. table.concat(tokens, '\n'))
  return {'committed'}
end

local items, i = {}, 1 -- all are checked before the first write
while i <= #ARGV do
  local p, key, fingerprint, operation = pool_for(ARGV[i], ARGV[i + 1], ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local existing, tokens = tonumber(ARGV[i + 6]), nil
  if not existing then error('a number is none') end
  tokens, i = list_after(i + 7, tonumber(ARGV[i + 7]))
  items[#items + 1] = {p or false, key, fingerprint, operation, int(existing), tokens}
end

local replies = {}
for n, item in ipairs(items) do
  local p, key, fingerprint, operation, existing, tokens = unpack(item)
  replies[n] = p and commit(p, key, fingerprint, operation, existing, tokens) or {'stale'}
end
return finish(replies)
