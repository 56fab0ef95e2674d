"""Limits of tables in scoring bodies: JSON, CSV and Parquet."""
