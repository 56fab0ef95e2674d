"""Arrow IPC streams: reader, writer and limits."""
