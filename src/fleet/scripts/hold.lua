#!lua flags=allow-oom
-- Holds the whole fleet's requests of an org after an upstream 429, and halves the rate, once per hold.
--
-- KEYS  1 state of the org's budget (hash)   2 orgs (zset: org -> last call)
-- ARGV  1 pause us, at most the longest that the caller allows   2 tolerance us   3 org
-- Returns {held for us, rate factor}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function us(n) return string.format('%.0f', n) end
local state = redis.call('HMGET', KEYS[1], 'tat', 'held', 'pace', 'at')
local tat, held, pace = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 1000
local at = tonumber(state[4]) or now
if now < at then
  -- The clock went back: so does the state, and turn.lua takes it for lost.
  local back = at - now
  tat, held = tat - back, held - back
  redis.call('HDEL', KEYS[1], 'born')
end
if held < now then pace = math.max(100, math.floor(pace / 2)) end
held = math.max(held, now + tonumber(ARGV[1]))
-- No burst after the pause: the upstream would not have answered 429 if any of it were left.
tat = math.max(tat, held + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'tat', us(tat), 'held', us(held), 'pace', pace, 'at', us(now))
redis.call('ZADD', KEYS[2], us(now), ARGV[3])
return {math.ceil(held - now), pace}
