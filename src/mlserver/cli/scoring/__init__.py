"""Batch scoring for `mlserver infer`: a file of requests or rows in, one result per item out.

`source`, `tables`, `csv_table` and `parquet_table` read the input into work items; `client` sends
them over REST or gRPC; `runner` sends many at once and retries; `output_log` writes the results in
order and resumes an interrupted run; `export` converts the log to a table; `progress` shows a bar.
"""
