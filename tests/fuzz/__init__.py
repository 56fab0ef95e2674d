"""Hostile bytes for every format: what a body may do at worst is be refused."""
