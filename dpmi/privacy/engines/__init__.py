"""Per-example clipping: how the clipped sum of a piece of a batch is computed."""
