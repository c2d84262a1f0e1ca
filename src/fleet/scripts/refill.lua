#!lua flags=allow-oom
-- Grants requests of client budgets to a replica in advance, from one bucket per budget.
--
-- KEYS  1 members (sorted set: replica -> end of its lease)  2 epoch, which ends in the time of its begin
--       3 when a replica last came back  4 end of the last gap between beats  5 and more: budgets (string: requests left, and when)
-- ARGV  1 replicas that the rate is divided among: the largest number that runs at the same time  2 members last known to the caller
--       3 latest time on this server's clock at which the call can have been sent  4 longest delay; then for each budget
--       5 interval between requests, in microseconds  6 burst  7 requests that are asked for
-- Times are in microseconds.
--
-- Returns for each budget {granted, left, time until one more is left}; nothing if the call came too late, or the clock was set
-- forward, which a beat tells later.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local us = function(n) return string.format('%.0f', n) end
if now > tonumber(ARGV[3]) + tonumber(ARGV[4]) then return {} end
local members, known = redis.call('ZCARD', KEYS[1]), tonumber(ARGV[2])
local live = redis.call('ZCOUNT', KEYS[1], '(' .. us(now), '+inf')
local replicas = math.max(tonumber(ARGV[1]), live)
-- Replicas whose lease has ended may be alone, and then have their share of the rate since. Not more than `replicas` run at the same
-- time: of the others, those whose lease has ended first count, since they may have been alone for the longest time.
local ended = redis.call('ZRANGE', KEYS[1], '-inf', us(now), 'BYSCORE', 'WITHSCORES')
-- Members that the server does not know any more, since it lost its state, count as replicas whose lease has ended.
local epoch = redis.call('GET', KEYS[2])
local born = epoch and (tonumber(string.match(epoch, '%-(%d+)$')) or 0) or now
if born > now then born = 0 end
local ends = {}
for _ = members + 1, known do table.insert(ends, born) end
for i = 2, #ended, 2 do table.insert(ends, tonumber(ended[i])) end
while #ends > replicas - live do table.remove(ends) end
local share = 1 - #ends / replicas
-- A replica that came back had its share until then. It is not known since when, so nothing is counted for the time before.
local returned = tonumber(redis.call('GET', KEYS[3]) or 0)
if returned > now then
  returned = now
  redis.call('SET', KEYS[3], us(now))
end
-- Nor for the time before the clock was set, or the server stood still.
returned = math.max(returned, math.min(tonumber(redis.call('GET', KEYS[4]) or 0), now))
local answers = {}
for i = 5, #KEYS do
  local argument = 3 * (i - 5) + 5
  local interval, burst, asked = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1]), tonumber(ARGV[argument + 2])
  -- A bucket of which nothing is known is full.
  local level, from = burst, now
  local state = redis.call('GET', KEYS[i])
  if state then
    local left, at = string.match(state, '^(%S+) (%S+)$')
    -- The clock may have been set back.
    level, from = tonumber(left), math.max(math.min(tonumber(at), now), returned)
  end
  local time = now - from
  for _, lease_end in ipairs(ends) do time = time - (now - math.max(from, lease_end)) / replicas end
  level = math.min(burst, level + math.max(0, time) / interval)
  local granted = math.min(asked, math.floor(level))
  level = level - granted
  -- Kept for longer than the bucket needs to fill up: without a state it counts as full.
  local keep = math.ceil((burst - level) * interval / 1000) + 600000
  redis.call('SET', KEYS[i], string.format('%.6f %.0f', level, now), 'PX', keep)
  local wait = level < 1 and math.min((1 - level) * interval / math.max(share, 0.01), 3600000000) or 0
  answers[i - 4] = {granted, math.floor(level), math.ceil(wait)}
end
return answers
