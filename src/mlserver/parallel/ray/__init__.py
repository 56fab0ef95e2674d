"""Executor of models in a Ray cluster: one Ray Serve application per model version.

Ray places, starts, replaces and counts the replicas. Requests do not pass through Ray: each replica
accepts connections with the frames of worker processes (`rpc`), because a call of a Serve handle
costs the front end 1 to 3 ms of CPU and a frame 0.02 ms (docs/explanation/decisions).

    executor   the server's process; imports no Ray
    agent      a child process of the server: the only Ray driver
    directory  an actor of the cluster: which replicas, applications and servers exist
    replica    a replica's process: a model runner behind a port
"""
