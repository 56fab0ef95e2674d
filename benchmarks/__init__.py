"""Benchmark of this server, its peers and a baseline, one at a time.

Method and results: docs/explanation/benchmarks.md.
"""
