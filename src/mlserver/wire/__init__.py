"""Wire formats: pure functions between bytes and the protocol's types. No sockets, no framework, no model."""
