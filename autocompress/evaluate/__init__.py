"""From a configuration to its evaluation: solve, build, verify, validate, measure."""
