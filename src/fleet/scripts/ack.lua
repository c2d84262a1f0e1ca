#!lua flags=allow-oom
-- Records how far a replica has read the log.
--
-- KEYS  1 positions (hash: replica -> position)  2 members (sorted set: replica -> end of its lease)
-- ARGV  1 replica  2 position
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
-- Replicas that are forgotten.
if redis.call('HLEN', KEYS[1]) > 2 * redis.call('ZCARD', KEYS[2]) + 8 then
  for _, replica in ipairs(redis.call('HKEYS', KEYS[1])) do
    if replica ~= ARGV[1] and not redis.call('ZSCORE', KEYS[2], replica) then redis.call('HDEL', KEYS[1], replica) end
  end
end
return 1
