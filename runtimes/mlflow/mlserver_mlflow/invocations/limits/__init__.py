"""Limits of tables in scoring bodies (CSV, JSON, Parquet).

Measurements: docs/explanation/decisions/limits.md.
"""
