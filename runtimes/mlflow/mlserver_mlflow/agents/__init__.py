"""Chat models and agents: OpenAI's formats, routes, streams and traces."""
