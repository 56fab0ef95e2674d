"""Micro-benchmarks of formats, frames and batches; run with `make bench-micro`, not part of the tests."""
