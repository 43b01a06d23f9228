#!lua flags=allow-oom
-- set_user: add, change or delete users: all that are named, or none.
-- KEYS[1]  users     HASH, name → epoch and hash as JSON; and '' → the last epoch given
-- ARGV[1]  verb      add (who is not there), set or delete (who is), put (either), rehash (whose hash is the one read)
-- ARGV[…]  items     name, hash, the hash that was read; the last two may be ''
-- RETURNS  once: {'set', epoch} | {'refused', the names that stand against it}
-- COST     O(items)
-- RETRY    safe: a second one is refused, or gives the same users a newer epoch

local WIDTH = 3
local users, verb = KEYS[1], ARGV[1]

-- The clock in microseconds, but never one that was given before: it outlives users, so that whoever is added
-- anew is somebody else, even if the clock went back.
local function new_epoch()
  local time = redis.call('TIME')
  local epoch = tonumber(time[1]) * 1000000 + tonumber(time[2])
  return math.max(epoch, tonumber(redis.call('HGET', users, '') or 0) + 1)
end

local function find(name)
  local stored = redis.call('HGET', users, name)
  return stored and cjson.decode(stored)
end

local function stands_against(name, read)
  local user = find(name)
  if verb == 'add' then return user end
  if verb == 'rehash' then return not user or user.password_hash ~= read end
  return verb ~= 'put' and not user
end

local refused = {'refused'}
for i = 2, #ARGV, WIDTH do
  if stands_against(ARGV[i], ARGV[i + 2]) then refused[#refused + 1] = ARGV[i] end
end
if #refused > 1 then return {0, {}, {refused}, 0} end

local epoch = new_epoch()
for i = 2, #ARGV, WIDTH do
  local name, hash = ARGV[i], ARGV[i + 1]
  if verb == 'delete' then
    redis.call('HDEL', users, name)
  else
    if verb == 'rehash' then epoch = find(name).epoch end
    local user = string.format('{"epoch":%.0f,"password_hash":%s}', epoch, cjson.encode(hash))
    redis.call('HSET', users, name, user)
  end
end
if verb ~= 'rehash' then redis.call('HSET', users, '', string.format('%.0f', epoch)) end
return {0, {}, {{'set', epoch}}, 0}
