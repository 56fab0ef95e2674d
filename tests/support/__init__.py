"""What the tests stand on: a real server to start and stop, repositories to write, and real MLflow models to serve."""
