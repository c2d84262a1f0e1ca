#!lua flags=allow-oom
-- Ends a fetch: frees its lock, and tells the replicas that wait for it.
--
-- KEYS  1 lock  2 flag: replicas wait for it  3 log (stream)
-- ARGV  1 value of the lock  2 name of the landing  3 outcome
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[2]) == 1 then
  local tail = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 4096, '*', 'after', tail[1] and tail[1][1] or '0-0', 'landed', ARGV[2], 'outcome', ARGV[3])
end
return 1
