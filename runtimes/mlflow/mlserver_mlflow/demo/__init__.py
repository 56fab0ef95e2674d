"""Model of `mlserver demo`: trained on data that is part of scikit-learn, without a network."""
