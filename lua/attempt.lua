#!lua flags=allow-oom
-- attempt: count the failed logins of one user from one address, over the last so many milliseconds.
-- KEYS[1]  prefix    of every key touched; its hash tag is the slot
-- KEYS[2]  guard     never exists; with KEYS[1] makes a moving slot answer before the script starts
-- ARGV[1]  verb      look, fail (count one more) or pass (forget them)
-- ARGV[2]  who
-- ARGV[3]  limit     from so many on nothing is counted or forgotten any more
-- ARGV[4]  window    ms that a failure counts
-- RETURNS  once: {'within', failures} | {'over', ms until the oldest counts no more}
-- COST     O(limit)
-- RETRY    safe: a second failure is counted again, which is stricter

local AT, AT_BYTES = '>I6', 6 -- a moment in ms
local verb, who, limit, window = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local this = math.floor(now / window)

-- What counts lies in this window or in the one before, which is why two are kept.
local function attempts(index) return PREFIX .. ':attempts:' .. int(index) end

local function failures()
  local found = {}
  for index = this - 1, this do
    local packed = redis.call('HGET', attempts(index), who) or ''
    for at = 1, #packed, AT_BYTES do
      local failed = struct.unpack(AT, packed, at)
      if now - failed < window then found[#found + 1] = failed end
    end
  end
  return found
end

local function attempt()
  local found = failures()
  if #found >= limit then return {'over', math.max(found[1] + window - now, 1)} end
  if verb == 'fail' then
    local key = attempts(this)
    redis.call('HSET', key, who, (redis.call('HGET', key, who) or '') .. struct.pack(AT, now))
    redis.call('EXPIRE', key, math.ceil(2 * window / 1000), 'NX')
    return {'within', #found + 1}
  end
  if verb == 'pass' and #found > 0 then
    for index = this - 1, this do redis.call('HDEL', attempts(index), who) end
    return {'within', 0}
  end
  return {'within', #found}
end

return finish({attempt()})
