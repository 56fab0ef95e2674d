-- Open loop: requests are due at times drawn beforehand (a Poisson process), whether or not answers have come. One wrk
-- thread drives one connection. If the connection was free when a request was due, its latency counts from when it was
-- sent; if it still waited for an earlier answer, from when it was due, so that a stall of the server is charged to every
-- request that it held up. The first argument is the rate of one connection in requests per second.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local post = require("post")
local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long seconds; long nanoseconds; } moment;
  int clock_gettime(int clock, moment *result);
]])
local MONOTONIC = 1
local moment = ffi.new("moment")
local threads = {}

local function now()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) * 1e-9
end

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(args)
  rate = tonumber(table.remove(args, 1))
  post.read(args)
  only = wrk.format()
  math.randomseed(1000 + number)
  for _ = 1, 10 do math.random() end
  samples, count, from, late = {}, 0, 0, false
end

local function gap()
  return -math.log(1 - math.random()) / rate
end

-- Milliseconds until the next request is due.
function delay()
  local time = now()
  due = due and due + gap() or time + gap()
  late = due <= time
  return late and 0 or math.floor((due - time) * 1000)
end

function request()
  from = late and due or now()
  return only
end

function response()
  count = count + 1
  samples[count] = now() - from
end

function done(summary, latency, requests)
  local all = {}
  for _, thread in ipairs(threads) do
    for _, sample in ipairs(thread:get("samples")) do
      table.insert(all, sample * 1e6)
    end
  end
  table.sort(all)
  local function percentile(p)
    return all[math.max(1, math.ceil(#all * p / 100))] or 0
  end
  post.print(#all, summary.duration / 1e6, post.errors(summary), percentile(50), percentile(99), percentile(99.9))
end
