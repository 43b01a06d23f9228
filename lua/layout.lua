#!lua flags=allow-oom
-- layout: agree on the number of partitions: the first replica ever decides, the others are told.
-- KEYS[1]  layout    HASH, partitions
-- ARGV[1]  partitions
-- RETURNS  once: {'layout', partitions}
-- COST     O(1)
-- RETRY    safe

redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
return {0, {}, {{'layout', tonumber(redis.call('HGET', KEYS[1], 'partitions'))}}, 0}
