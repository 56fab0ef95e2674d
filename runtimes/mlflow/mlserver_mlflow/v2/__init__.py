"""Conversion of V2 requests to arguments of predict, and of its results to V2 responses."""
