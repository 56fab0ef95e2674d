"""Comparison of a payload log with a reference table: `mlserver drift`."""
