-- Closed loop: every connection sends its next request when it has its answer.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local post = require("post")

init = post.read

function done(summary, latency, requests)
  post.print(summary.requests, summary.duration / 1e6, post.errors(summary),
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9))
end
