"""Arrow IPC streams: reading, writing, and limits."""
