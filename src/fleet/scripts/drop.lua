#!lua flags=allow-oom
-- Gives a partition, or a tenant, a new generation, so that its entries are found no more, and tells the replicas by the log.
--
-- KEYS  1 generation of the partition or the tenant  2 log (stream)
-- ARGV  1 tenant  2 partition, or * for all of the tenant's  3 time for which a generation is kept, in seconds
--       4 a generation that a replica has seen, or 0: the new one is later, also if this server's was set back
--
-- Returns the position of the drop in the log.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
-- Microseconds, so that no generation comes twice, not even after its key was lost. What is no such number was set by someone else.
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if not last or last < 0 or last >= 2 ^ 52 then last = 0 end
local generation = math.max(now, last + 1, tonumber(ARGV[4]) + 1)
redis.call('SET', KEYS[1], string.format('%.0f', generation), 'EX', ARGV[3])
local tail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', 4096, '*', 'after', tail[1] and tail[1][1] or '0-0', 'tenant', ARGV[1], 'dropped', ARGV[2],
  'generation', string.format('%.0f', generation))
