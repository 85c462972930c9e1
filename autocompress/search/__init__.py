"""The Optuna study: sampling configurations, evaluating candidates, storing what was seen."""
