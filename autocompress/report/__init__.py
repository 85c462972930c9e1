"""What people and machines read of a study. Imports neither Optuna nor TensorFlow."""
