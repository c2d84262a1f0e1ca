#!lua flags=allow-oom
-- Renews the lease of a replica, and says how many members there are.
--
-- KEYS  1 members (sorted set: replica -> end of its lease)  2 log (stream)  3 epoch  4 end of the last gap between beats
--       5 when a replica last came back  6 ranks (sorted set: replica -> its place in the time slots of replicas that are alone)
--       7 id of the key from which the fleet's names derive
-- ARGV  1 replica  2 length of a lease  3 time after which a lease that has ended is forgotten
--       4 time at which the beat was sent, on this server's clock  5 longest delay  6 epoch to set if there is none, or no member
--       7 the replica's rank, as far as it knows; -1 for none  8 1 if the replica has seen that this server's clock was set
--       9 id of the key from which the replica's names derive
-- Times are in microseconds.
--
-- Returns {'ok', now, epoch, last entry of the log, members, members with a lease, rank or -1}, {'late', now} or {'stranger', now}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local us = function(n) return string.format('%.0f', n) end
local lease, forget = tonumber(ARGV[2]), tonumber(ARGV[3])
if ARGV[8] == '1' then redis.call('SET', KEYS[4], us(now)) end
-- A beat that was queued while this server was paused would renew a lease that its replica considers lost.
if now - tonumber(ARGV[4]) > tonumber(ARGV[5]) then return {'late', us(now)} end
local stranger = '!' .. ARGV[1]
if redis.call('GET', KEYS[7]) ~= ARGV[9] then
  -- Budgets and drops of a replica with another key have other names. While the fleet has members, it is none of them. It may go on
  -- alone, so it counts as one whose lease has ended: its share is left to it (turn.lua).
  for _, replica in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. us(now - forget), '+inf', 'BYSCORE')) do
    if replica ~= ARGV[1] and string.sub(replica, 1, 1) ~= '!' and redis.call('GET', KEYS[7]) then
      redis.call('ZREM', KEYS[1], ARGV[1])
      redis.call('ZREM', KEYS[6], ARGV[1])
      redis.call('ZADD', KEYS[1], us(now - 1), stranger)
      return {'stranger', us(now)}
    end
  end
  redis.call('SET', KEYS[7], ARGV[9])
end
redis.call('ZREM', KEYS[1], stranger)
-- Without any member their state was lost, or the fleet begins. The replicas that see another epoch count the members of before for a
-- minute, also those that may be alone.
if redis.call('ZCARD', KEYS[1]) == 0 then redis.call('SET', KEYS[3], ARGV[6]) end
redis.call('SET', KEYS[3], ARGV[6], 'NX')
-- Without a lease it may have been alone until now, with its share of the budgets (refill.lua).
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not before or tonumber(before) < now then redis.call('SET', KEYS[5], us(now)) end
-- No beat for 200 ms: the clock was set, or the server stood still. Budgets then count their burst as spent (turn.lua).
local latest = redis.call('ZRANGE', KEYS[1], us(now + lease), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
if not latest[2] or now + lease - tonumber(latest[2]) > 200000 then redis.call('SET', KEYS[4], us(now)) end
redis.call('ZADD', KEYS[1], us(now + lease), ARGV[1])
for _, replica in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', us(now - forget), 'BYSCORE')) do
  redis.call('ZREM', KEYS[1], replica)
  redis.call('ZREM', KEYS[6], replica)
end
-- The clock was set back: no lease ends later than one that is given now.
for _, replica in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. us(now + lease), '+inf', 'BYSCORE')) do
  redis.call('ZADD', KEYS[1], us(now + lease), replica)
end
-- A replica keeps its rank for as long as it is known, also when others join or leave: it may be cut off from now on, and then nobody can
-- tell it another one. After a loss of state each replica tells its own; others have to wait until all have had time for that.
local rank = tonumber(redis.call('ZSCORE', KEYS[6], ARGV[1]) or -1)
if rank < 0 then
  local own, age = tonumber(ARGV[7]), now - (tonumber(string.match(redis.call('GET', KEYS[3]), '%-(%d+)$')) or 0)
  local ranks, taken, free = redis.call('ZRANGE', KEYS[6], 0, -1, 'WITHSCORES'), {}, 0
  for i = 1, #ranks, 2 do
    -- An earlier version of this script forgets members and not their ranks. After a loss of the members alone, those that are cut off
    -- keep theirs for as long as they would have been known.
    if (age < 0 or age > forget) and not redis.call('ZSCORE', KEYS[1], ranks[i]) then
      redis.call('ZREM', KEYS[6], ranks[i])
    else
      taken[tonumber(ranks[i + 1])] = true
    end
  end
  while taken[free] do free = free + 1 end
  if own >= 0 and not taken[own] then
    rank = own
  elseif age < 0 or age > lease + tonumber(ARGV[5]) then
    rank = free
  end
  if rank >= 0 then redis.call('ZADD', KEYS[6], rank, ARGV[1]) end
end
local tail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {
  'ok', us(now), redis.call('GET', KEYS[3]), tail[1] and tail[1][1] or '0-0',
  redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[1], us(now), '+inf'), rank,
}
