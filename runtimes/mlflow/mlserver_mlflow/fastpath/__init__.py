"""Shorter ways to predict that are checked at load to give the same results."""
