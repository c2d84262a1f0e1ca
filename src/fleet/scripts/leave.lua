#!lua flags=allow-oom
-- Removes a replica that has drained, so that the others have its share at once.
--
-- KEYS  1 members   2 ranks   ARGV  1 replica
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
