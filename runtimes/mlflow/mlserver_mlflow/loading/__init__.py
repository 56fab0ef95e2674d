"""From a model's address to a loaded model: resolution, downloads, code, environments."""
