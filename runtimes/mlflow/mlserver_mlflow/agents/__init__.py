"""Chat agents: OpenAI's message format, routes, traces."""
