"""What runs inside of a worker process: sessions of peers, and the models."""
