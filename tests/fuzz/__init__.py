"""Fuzz tests: malicious bytes for every format may only be rejected."""
