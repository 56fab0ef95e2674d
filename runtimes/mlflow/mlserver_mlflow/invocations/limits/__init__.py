"""Limits of tables in scoring bodies (CSV, JSON, Parquet), see docs/decisions/limits.md."""
