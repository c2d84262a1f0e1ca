#!lua flags=allow-oom
-- Finds an entry, or makes one replica fetch it.
--
-- KEYS  1 generation of the partition  2 generation of the tenant  3 entry  4 lock of the fetch  5 flag: replicas wait for it
-- ARGV  1 f (callers wait) or b (background), colon, token  2 lease of the lock, in milliseconds
--       3 time at which the newest entry that the replica has was asked for, in microseconds  4 number of the server
--       5 time for which a generation is kept, in seconds
--
-- The lock's value is `holder generation`: a fetch that began before a drop is not waited for after it.
--
-- Returns {'hit', now, generation, entry, 0, 0}, {'lead', now, generation, stale entry or false, 0, 0} or {'wait', now, generation, stale
-- entry or false, value of the lock, milliseconds of its lease}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local us = function(n) return string.format('%.0f', n) end
local generations = {}
for index = 1, 2 do
  generations[index] = redis.call('GET', KEYS[index]) or us(now)
  -- What is no number of microseconds was set by someone else.
  if not string.match(generations[index], '^%d+$') or tonumber(generations[index]) >= 2 ^ 52 then generations[index] = us(now) end
  redis.call('SET', KEYS[index], generations[index], 'EX', ARGV[5])
end
local generation = generations[1] .. ':' .. generations[2] .. ':' .. ARGV[4]
local of, asked, fresh = string.match(redis.call('GETRANGE', KEYS[3], 0, 127), '^(%S+) (%d+) (%d+) ')
-- A replica reads these times as whole numbers.
local is_current = of == generation and tonumber(asked) <= now and tonumber(asked) > tonumber(ARGV[3]) and tonumber(fresh) < 2 ^ 63
if is_current and tonumber(fresh) > now then
  return {'hit', us(now), generation, redis.call('GET', KEYS[3]), 0, 0}
end
local lock = redis.call('GET', KEYS[4])
local is_obsolete = not lock or string.match(lock, ' (%S+)$') ~= generation
-- Callers do not wait for a fetch in the background, which may be queued for long.
if is_obsolete or (string.sub(lock, 1, 1) == 'b' and string.sub(ARGV[1], 1, 1) == 'f') then
  redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. generation, 'PX', ARGV[2])
  return {'lead', us(now), generation, is_current and redis.call('GET', KEYS[3]), 0, 0}
end
redis.call('SET', KEYS[5], 1, 'PX', 2 * ARGV[2])
local is_background = string.sub(ARGV[1], 1, 1) == 'b'
return {'wait', us(now), generation, is_background and is_current and redis.call('GET', KEYS[3]), lock, redis.call('PTTL', KEYS[4])}
