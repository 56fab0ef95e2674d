"""Soak tests: the server under load and faults, with samples of its resources."""
