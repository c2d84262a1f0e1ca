#!lua flags=allow-oom
-- Removes a replica that has drained, so that the others have its share at once.
--
-- KEYS  1 members   ARGV  1 replica
return redis.call('ZREM', KEYS[1], ARGV[1])
