#!lua
-- Stores an entry, unless its partition was dropped since it was asked for, or a newer one is stored.
--
-- KEYS  1 generation of the partition  2 generation of the tenant  3 entry
-- ARGV  1 generation when the entry was asked for  2 time at which it was asked for  3 number of the server  4 entry
--       5 time for which it is kept, in milliseconds
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local partition, tenant = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not partition or not tenant or partition .. ':' .. tenant .. ':' .. ARGV[3] ~= ARGV[1] then return 0 end
local of, asked = string.match(redis.call('GETRANGE', KEYS[3], 0, 127), '^(%S+) (%d+) ')
if of == ARGV[1] and tonumber(asked) >= tonumber(ARGV[2]) and tonumber(asked) <= now then return 0 end
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
return 1
