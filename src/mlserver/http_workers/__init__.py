"""HTTP worker processes: additional processes with front ends (setting `http_workers` above 1).

The server's process owns the repository, the registry, the model workers and the metrics page.
`supervisor` and `process` are its side. `worker` is the main program of an HTTP worker, `replica`
its copy of the registry and of the list of model workers, and `snapshot` the message that updates
it.
"""
