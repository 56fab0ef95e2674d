"""Wire formats: pure functions between bytes and `mlserver.types`, one module per format."""
