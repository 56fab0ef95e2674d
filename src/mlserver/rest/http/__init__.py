"""HTTP/1.1: connections, request and response cycles, bodies, timeouts."""
