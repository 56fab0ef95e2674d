"""Environments of models under the names of MLServer 1.x; they live in `execution.environment`."""

from .execution.environment import Environment, compute_hash_of_file, compute_hash_of_string

__all__ = ["Environment", "compute_hash_of_file", "compute_hash_of_string"]
