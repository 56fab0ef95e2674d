"""V2 requests to the arguments of a model's predict, and its results to V2 responses."""
