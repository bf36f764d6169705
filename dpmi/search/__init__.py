"""A search: Optuna chooses the runs of a sweep, on drawn images alone."""
