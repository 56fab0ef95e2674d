"""Fast paths: prediction without MLflow's enforcement, used after trial predictions at load."""
