"""Batch scoring: a file of requests or rows in, one answer per line out. `mlserver infer` is its command.

`source` and `tables` read, `client` asks, `job` does so many times at once and again where that helps, `journal` keeps the
answers in order and across interruptions, `export` writes them as a table, `progress` tells.
"""
