#!lua flags=allow-oom
-- Extends the lease of a lock, for its holder.
--
-- KEYS  1 lock   ARGV  1 holder  2 lease, in milliseconds
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
