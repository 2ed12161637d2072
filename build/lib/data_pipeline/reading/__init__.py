"""From a prepared data set to batches."""
