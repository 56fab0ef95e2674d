"""Further processes with front ends, for machines with many cores (`http_workers` above 1).

`control` is the side of the server's own process, which owns repository, registry, workers and metrics page, and `process`
is how it sees each other one; `front` is such a process from within, `mirror` what it knows of models and workers, and
`table` how that is told.
"""
