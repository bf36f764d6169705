"""Names of metrics, importable without torch: records and tables use them too."""

# Prefix of whatever is computed on the training images without noise: no ε covers it.
NONPRIVATE = "nonprivate"
TRAIN_METRICS = f"{NONPRIVATE}/train"
