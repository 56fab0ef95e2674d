"""Helpers of the tests: server processes, model repositories, MLflow models and clients."""
