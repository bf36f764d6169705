"""A search: Optuna chooses the runs of a sweep, on synthetic images only."""
