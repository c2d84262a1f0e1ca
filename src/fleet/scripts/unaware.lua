#!lua flags=allow-oom
-- Counts the replicas with a lease that have not read the log up to a position. If the log has lost the entry there, the members are
-- not known either: -1.
--
-- KEYS  1 positions (hash: replica -> position)  2 members (sorted set: replica -> end of its lease)  3 log (stream)
-- ARGV  1 milliseconds and 2 sequence number of the position
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000000 + clock[2])
local position = ARGV[1] .. '-' .. ARGV[2]
if #redis.call('XRANGE', KEYS[3], position, position) == 0 then return -1 end
local millis, sequence = tonumber(ARGV[1]), tonumber(ARGV[2])
local unaware = 0
for _, replica in ipairs(redis.call('ZRANGE', KEYS[2], now, '+inf', 'BYSCORE')) do
  local m, s = string.match(redis.call('HGET', KEYS[1], replica) or '0-0', '^(%d+)-(%d+)$')
  m, s = tonumber(m), tonumber(s)
  if m < millis or (m == millis and s < sequence) then unaware = unaware + 1 end
end
return unaware
