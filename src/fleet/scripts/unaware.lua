#!lua flags=allow-oom
-- Counts the replicas with a lease that have not read the log up to a position. -1 if they may not be all that trust what they hold: the
-- log has lost the entry there, and perhaps the members with it, the asking replica knows of more, or leases ended since the server's
-- clock was set or its state was lost.
--
-- KEYS  1 positions (hash: replica -> position)  2 members (sorted set: replica -> end of its lease)  3 log (stream)
--       4 end of the last gap between beats
-- ARGV  1 milliseconds and 2 sequence number of the position  3 replicas with a lease, as far as the asking one knows
--       4 time after which a replica that has had no beat trusts nothing, in microseconds
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local position = ARGV[1] .. '-' .. ARGV[2]
if #redis.call('XRANGE', KEYS[3], position, position) == 0 then return -1 end
local gap = tonumber(redis.call('GET', KEYS[4]) or '')
if not gap or gap > now or now - gap <= tonumber(ARGV[4]) then return -1 end
local live = redis.call('ZRANGE', KEYS[2], string.format('%.0f', now), '+inf', 'BYSCORE')
if #live < tonumber(ARGV[3]) then return -1 end
local millis, sequence = tonumber(ARGV[1]), tonumber(ARGV[2])
local unaware = 0
for _, replica in ipairs(live) do
  local m, s = string.match(redis.call('HGET', KEYS[1], replica) or '', '^(%d+)-(%d+)$')
  m, s = tonumber(m or 0), tonumber(s or 0)
  if m < millis or (m == millis and s < sequence) then unaware = unaware + 1 end
end
return unaware
