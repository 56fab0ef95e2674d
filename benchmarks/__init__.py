"""Benchmark of this server, its peers and a baseline, one at a time; see docs/benchmarks.md."""
