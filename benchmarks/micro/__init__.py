"""Micro-benchmarks of formats, frames and batches, run by `make bench-micro`."""
