"""Which requests run when, and which run together: `scheduler` drives the pure rules of `policy`, `batch` and `limits`."""
