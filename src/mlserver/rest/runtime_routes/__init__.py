"""REST routes that a runtime declares: matching of paths, and wire formats of runtimes."""
