"""The study in Optuna's storage: opening, reading back, what finished trials hold, stored artifacts."""
