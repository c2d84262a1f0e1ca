#!lua flags=allow-oom
-- Deletes the state of orgs that no replica has asked about for long. Their keys have no TTL, so that none is evicted.
--
-- KEYS  1 orgs (zset: org -> last call)   2... what the keys of an org begin with
-- ARGV  1 longest time without a call us
-- Returns the number of orgs that were deleted.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local idle = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[1]), 'LIMIT', 0, 32)
for _, org in ipairs(idle) do
  for prefix = 2, #KEYS do redis.call('DEL', KEYS[prefix] .. org) end
  redis.call('ZREM', KEYS[1], org)
end
return #idle
