"""Loading of a model from its address: resolution, download, code policy, environment, pyfunc."""
