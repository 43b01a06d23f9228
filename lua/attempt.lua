#!lua flags=allow-oom
-- attempt: count the failed logins of a user or of an address, and remember where a user has logged in.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[1]  verb      look, fail (count one more) or pass (forget the failures of the pair; its address is known)
-- ARGV[2]  window    ms that a failure counts
-- ARGV[3]  entries   most counts of one window in this partition; one more replaces a random one
-- ARGV[4]  shared    id of the user over all unknown addresses, or of the address over all users
-- ARGV[5]  max       failures of it in a window; from then on one more each window/max
-- ARGV[6]  pair      id of the user at this address; '' where only `shared` is asked for, which is all of them
-- ARGV[7]  pair max  failures of it in a window; from then on none
-- ARGV[8]  site      id of the address
-- ARGV[9]  known     most addresses that are known of a user
-- ARGV[10] known ms  that one is known after a login
-- RETURNS  once: {'within', 1 if the address is known} | {'over', 'pair' or 'shared', ms until the next try, 1 if known}
-- COST     O(pair max)
-- RETRY    safe: a second failure is counted again, which is stricter

local AT, AT_BYTES = '>I6', 6 -- a moment in ms
local verb, window, entries_max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local shared, interval = ARGV[4], window / tonumber(ARGV[5])
local pair, pair_max, site = ARGV[6], tonumber(ARGV[7]), ARGV[8]
local known_max, known_ms = tonumber(ARGV[9]), tonumber(ARGV[10])
local this = math.floor(now / window)
local known_key = PREFIX .. ':known:' .. shared
local known = 0
if pair ~= '' then
  local at = redis.call('ZSCORE', known_key, site)
  if at and now - tonumber(at) < known_ms then known = 1 end
end

-- What counts was written in this window or in the one before, so two are kept.
local function attempts(index) return PREFIX .. ':attempts:' .. int(index) end

local function put(id, packed)
  local key = attempts(this)
  if redis.call('HLEN', key) >= entries_max and redis.call('HEXISTS', key, id) == 0 then
    redis.call('HDEL', key, redis.call('HRANDFIELD', key))
  end
  redis.call('HSET', key, id, packed)
  redis.call('EXPIRE', key, math.ceil(2 * window / 1000), 'NX')
end

-- The moments of the pair's failures.
local function failures()
  local found = {}
  for index = this - 1, this do
    local packed = redis.call('HGET', attempts(index), pair) or ''
    for at = 1, #packed, AT_BYTES do
      local failed = struct.unpack(AT, packed, at)
      if now - failed < window then found[#found + 1] = failed end
    end
  end
  return found
end

-- When all tries of `shared` are there again: a token bucket, stored as the moment at which it is full (GCRA).
local function full_at()
  local latest = now
  for index = this - 1, this do
    local packed = redis.call('HGET', attempts(index), shared)
    if packed then latest = math.max(latest, (struct.unpack(AT, packed))) end
  end
  return latest
end

local function over()
  local found = pair ~= '' and failures() or {}
  if pair ~= '' and #found >= pair_max then
    return {'over', 'pair', math.max(found[1] + window - now, 1), known}
  end
  local wait = full_at() - now - (window - interval)
  if known == 0 and wait > 0 then return {'over', 'shared', math.ceil(wait), known} end
  return nil
end

local function fail()
  if pair ~= '' then put(pair, (redis.call('HGET', attempts(this), pair) or '') .. struct.pack(AT, now)) end
  if known == 0 then put(shared, struct.pack(AT, full_at() + interval)) end
end

local function pass()
  for index = this - 1, this do redis.call('HDEL', attempts(index), pair) end
  redis.call('ZADD', known_key, now, site)
  redis.call('ZREMRANGEBYRANK', known_key, 0, -known_max - 1)
  redis.call('PEXPIRE', known_key, int(known_ms))
end

local refused = over()
if not refused and verb == 'fail' then fail() end
if not refused and verb == 'pass' then pass() end
return finish({refused or {'within', known}})
