-- The request of a run, from the arguments after `--`: the body's file, how many headers, the headers, the paths.
local post = { paths = {} }

function post.read(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  file:close()
  local count = tonumber(args[2])
  for i = 3, 2 + count do
    local name, value = args[i]:match("^(.-): (.*)$")
    wrk.headers[name] = value
  end
  for i = 3 + count, #args do
    table.insert(post.paths, args[i])
  end
  wrk.path = post.paths[1]
end

function post.errors(summary)
  local e = summary.errors
  return e.connect + e.read + e.write + e.status + e.timeout
end

-- One line for load.py: requests, seconds, errors, and three percentiles in microseconds.
function post.print(requests, seconds, errors, p50, p99, p999)
  print(string.format("RESULT %d %.6f %d %.1f %.1f %.1f", requests, seconds, errors, p50, p99, p999))
end

return post
