-- dump: every key of one namespace on one primary at one moment, as it is. Test-only; runs by itself on each.
-- ARGV[1]  pattern
-- Answers: Redis's clock as scripts count it (the first whole ms after this moment), then {key, type, ttl ms or -1, content} of each key.

local time = redis.call('TIME')
local read = {
  string = function(key) return redis.call('GET', key) end,
  hash = function(key) return redis.call('HGETALL', key) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
}
local dump = {math.floor(tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000) + 1}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  local content = (read[kind] or function() return '' end)(key)
  if type(content) ~= 'table' then content = {content} end
  dump[#dump + 1] = {key, kind, redis.call('PTTL', key), content}
end
return dump
