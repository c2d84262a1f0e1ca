#!lua flags=allow-oom
-- Gives a flow's place in the fleet's queue back, a granted request that was not sent, or both.
--
-- KEYS  1 state of the org's budget (hash)   2 waiting flows (zset)   3 when each is expected to ask again (zset)
--       4 last rounds of credentials (zset)   5 the oldest renewal of each waiting flow (hash)
-- ARGV  1 urgency: f or b   2 credential   3 account   4 when the caller is expected to ask again us (0: it has no place)
--       5 interval us (0: no request was granted)   6 granted at us
-- Returns {places given back, requests given back}.
local credential = ARGV[1] .. ':' .. ARGV[2]
local flow = credential .. ':' .. ARGV[3]
local places, requests = 0, 0
local function us(n) return string.format('%.0f', n) end
-- If another replica has asked for the flow since, the place is that replica's.
local expected = redis.call('ZSCORE', KEYS[3], flow)
if expected and tonumber(expected) == tonumber(ARGV[4]) then
  redis.call('ZREM', KEYS[3], flow)
  redis.call('HDEL', KEYS[5], flow)
  redis.call('ZADD', KEYS[4], 'XX', 'INCR', -1, credential)
  places = redis.call('ZREM', KEYS[2], flow)
end
local interval, granted = tonumber(ARGV[5]), tonumber(ARGV[6])
if interval > 0 then
  local clock = redis.call('TIME')
  local now = clock[1] * 1000000 + clock[2]
  local state = redis.call('HMGET', KEYS[1], 'tat', 'held', 'born', 'at')
  local tat, held, born, at = tonumber(state[1]), tonumber(state[2]) or 0, tonumber(state[3]), tonumber(state[4])
  -- After an interval, time has made up for the request. A pause leaves nothing to return to, and so does a loss of state.
  if tat and born and at and at <= now and held <= now and born <= granted and granted <= now and now <= granted + interval then
    redis.call('HSET', KEYS[1], 'tat', us(tat - interval), 'at', us(now))
    requests = 1
  end
end
return {places, requests}
