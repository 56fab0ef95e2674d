"""The benchmark: this server, its peers and a floor, one at a time, on the same model and requests. See docs/benchmarks.md."""
