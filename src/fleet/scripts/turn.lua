#!lua flags=allow-oom
-- Asks for one upstream request of a flow: grants it, or says how long the flow's place in the fleet's queue has to wait.
--
-- KEYS  1 state of the org's budget (hash)   2 waiting flows (zset: flow -> place)   3 when each is expected to ask again (zset)
--       4 last rounds of credentials (zset)   5 members (zset: replica -> end of its lease)
--       6 end of the last gap between beats   7 orgs (zset: org -> last call)
--       8 the oldest renewal of each waiting flow (hash: flow -> request time of what it renews us, until when it goes first us)
-- ARGV  1 interval us   2 tolerance, in intervals   3 urgency: f or b   4 credential   5 account   6 longest wait us
--       7 org   8 replicas last known to the caller   9 most replicas   10 lease us
--       11 the caller's number for this server, which another has after a failover
--       12 latest time on this server's clock at which the call can have been sent us
--       13 request time of the entry that is renewed us
-- Returns {verdict, wait us, server's time us, held for us, rate factor, expected at us, arrival time of the next request, from now us}.
--   go     granted at the server's time; instead of the wait, what the grant costs in us
--   wait   the flow has a place; ask again after the wait, and at least every 200 ms
--   later  the wait is longer than the longest; a flow without a place got none
--   late   the call came too late for a grant to be used, or the clock was set forward; nothing has changed
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local FULL, STEP, SEQUENCE, URGENCY = 1000, 10, 2 ^ 20, 2 ^ 52
local POLL, GONE, PASS, LATE, SILENT, FORGET = 200000, 400000, 40000, 40000, 200000, 60000000
-- The time by which the clock went forward would be counted as if it had passed, until a beat tells of it.
if now > tonumber(ARGV[12]) + LATE then return {'late', 0, now, 0, FULL, 0, 0} end
local interval, background, lease = tonumber(ARGV[1]), ARGV[3] == 'b', tonumber(ARGV[10])
local tolerance = tonumber(ARGV[2]) * interval
local credential = ARGV[3] .. ':' .. ARGV[4]
local flow = credential .. ':' .. ARGV[5]
local function us(n) return string.format('%.0f', n) end

local state = redis.call('HMGET', KEYS[1], 'tat', 'held', 'pace', 'born', 'seq', 'at', 'gap')
local tat, held, pace = tonumber(state[1]), tonumber(state[2]) or 0, tonumber(state[3]) or FULL
local born, seq, at = tonumber(state[4]), tonumber(state[5]) or 0, tonumber(state[6]) or now
if now < at then
  -- The clock went back (NTP, another server). The state goes back with it, as if no time had passed since the last call.
  local back = at - now
  tat, held, born = tat and tat - back, held - back, born and born - back
  if back > SILENT then
    redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[8])
    -- A lease that ends later than one given now says nothing about the present. Beats renew it.
    for _, replica in ipairs(redis.call('ZRANGE', KEYS[5], '(' .. us(now + lease), '+inf', 'BYSCORE')) do
      redis.call('ZADD', KEYS[5], us(now), replica)
    end
  end
end

local longest = us(now + lease)
local live = redis.call('ZCOUNT', KEYS[5], us(now), longest)
local latest = redis.call('ZRANGE', KEYS[5], longest, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
-- Another gap between beats, or another server, since the last call.
local gap = (redis.call('GET', KEYS[6]) or '0') .. ':' .. ARGV[11]
local silent = not latest[2] or now + lease - tonumber(latest[2]) > SILENT or gap ~= state[7]
if not tat or not born or silent then
  -- The state is new, lost, or another server's, or the clock went forward, which looks as if no replica had beaten for long:
  -- the burst, and one request that may still be under way, count as spent, and a pause goes on as if no time had passed.
  if held > at and now > at then held = held + now - at end
  born, tat = now, math.max(tat or 0, math.max(now, held) + tolerance + interval)
end
-- Members with an expired lease may be alone: their share is left to them, until beats forget them. After a loss of state the
-- number that the caller knew counts for as long.
local known = math.max(live, redis.call('ZCARD', KEYS[5]), now < born + FORGET and tonumber(ARGV[8]) or 1)
known = math.min(known, math.max(live, tonumber(ARGV[9])))
live = math.max(1, live)
-- A share of the budget has less of the rate; the tolerance stays, so it has less of the burst too.
local cost = interval * known / live * FULL / pace
-- The arrival time is never further ahead than right after a grant: it may be, if the share has grown.
tat = math.min(tat, math.max(now, held) + tolerance + cost)

local function answer(verdict, wait, expected)
  redis.call('HSET', KEYS[1], 'tat', us(tat), 'held', us(held), 'pace', pace, 'born', us(born), 'seq', us(seq), 'at', us(now),
    'gap', gap)
  redis.call('ZADD', KEYS[7], us(now), ARGV[7])
  return {verdict, math.ceil(wait), now, math.ceil(math.max(0, held - now)), pace, expected or 0,
    math.ceil(math.max(0, tat - now))}
end

-- Flows that stopped asking lose their place, and their credentials the round of it.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', us(now - GONE), 'LIMIT', 0, 32)) do
  redis.call('ZREM', KEYS[2], gone)
  redis.call('ZREM', KEYS[3], gone)
  redis.call('HDEL', KEYS[8], gone)
  redis.call('ZADD', KEYS[4], 'XX', 'INCR', -1, string.match(gone, '^%a:[^:]*'))
end

-- Places go round by round: a credential's next place is one round after its last one, or in the round that is served now.
local base, rounds = background and URGENCY or 0, background and URGENCY / SEQUENCE or 0
local place, score, round = redis.call('ZRANK', KEYS[2], flow), nil, nil
if not place then
  local head = redis.call('ZRANGEBYSCORE', KEYS[2], us(base), us(base + URGENCY - 1), 'WITHSCORES', 'LIMIT', 0, 1)
  if head[2] then
    local served = rounds + math.floor((tonumber(head[2]) - base) / SEQUENCE)
    local last = tonumber(redis.call('ZSCORE', KEYS[4], credential))
    round = math.max(served, last and last + 1 or 0)
    redis.call('ZREMRANGEBYSCORE', KEYS[4], us(rounds), '(' .. us(served))
  else
    round = rounds
    redis.call('ZREMRANGEBYSCORE', KEYS[4], us(rounds), us(rounds + URGENCY / SEQUENCE - 1))
  end
  score = base + (round - rounds) * SEQUENCE + seq % SEQUENCE
  place = redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. us(score))
end

-- Of a flow's renewals, which several replicas have, that of the oldest entry goes first, as long as its replica asks.
local renews, behind = tonumber(ARGV[13]), false
if background then
  local oldest, till = string.match(redis.call('HGET', KEYS[8], flow) or '', '^(%d+) (%d+)$')
  till = tonumber(till or 0)
  behind = till >= now and till <= now + POLL + PASS and tonumber(oldest) < renews
end

-- A renewal leaves the last slot that a caller could use at once, as far as the tolerance has one.
local first = math.max(tat + (background and math.min(cost, tolerance) or 0) - tolerance, held)
local slots = first <= now and math.floor((now - first) / cost) + 1 or 0
-- The flows in front were called earlier. One that does not come within 40 ms of its slot is passed over.
local pass = math.min(PASS, math.max(tolerance, interval) / 2)
if not behind and (place < slots or (slots > 0 and now - first >= pass * (place - slots + 1))) then
  tat, pace = math.max(tat, now) + cost, math.min(FULL, pace + STEP)
  redis.call('ZREM', KEYS[2], flow)
  redis.call('ZREM', KEYS[3], flow)
  redis.call('HDEL', KEYS[8], flow)
  if round then redis.call('ZADD', KEYS[4], us(round), credential) end
  return answer('go', cost)
end
local wait = first + place * cost - now
if slots > 0 then wait = math.min(wait, first + pass * (place - slots + 1) - now) end
if behind then wait = math.max(wait, cost) end
local verdict = wait > tonumber(ARGV[6]) and 'later' or 'wait'
if score then
  if verdict == 'later' then return answer(verdict, wait) end
  redis.call('ZADD', KEYS[2], us(score), flow)
  redis.call('ZADD', KEYS[4], us(round), credential)
  seq = seq + 1
end
local expected = now + math.min(POLL, math.ceil(wait))
redis.call('ZADD', KEYS[3], us(expected), flow)
if background and not behind then redis.call('HSET', KEYS[8], flow, us(renews) .. ' ' .. us(now + POLL + PASS)) end
return answer(verdict, wait, expected)
