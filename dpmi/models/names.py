"""Names of metrics, importable without torch: records and tables use them too."""

# Prefix of whatever is computed on the training images without noise: no ε covers it.
NONPRIVATE = "nonprivate"
TRAIN_METRICS = f"{NONPRIVATE}/train"

BINS = 15  # of the calibration error, of equal width, over the probability of the class chosen

UNDEFINED = "undefined"  # what tables say of a metric that is not defined of the images at hand
