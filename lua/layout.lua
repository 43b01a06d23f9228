#!lua flags=allow-oom
-- layout: agree on the number of partitions: the first replica ever decides, the others are told.
-- KEYS[1]  layout    HASH, partitions; superseded_by, once the data set has moved to another key schema
-- ARGV[1]  partitions
-- RETURNS  once: {'layout', partitions, superseded_by or 0}
-- COST     O(1)
-- RETRY    safe

redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
local partitions = tonumber(redis.call('HGET', KEYS[1], 'partitions'))
local superseded_by = tonumber(redis.call('HGET', KEYS[1], 'superseded_by') or 0)
return {0, {}, {{'layout', partitions, superseded_by}}, 0}
