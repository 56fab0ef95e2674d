"""The version of the distribution, and nothing else."""

__version__ = "2.0.0.dev0"
