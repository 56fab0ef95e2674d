-- As closed.lua, asking several paths in turn.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
dofile(here .. "closed.lua")
local post = require("post")
local requests, at = {}, 0

function init(args)
  post.read(args)
  for i, path in ipairs(post.paths) do
    requests[i] = wrk.format(nil, path)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
