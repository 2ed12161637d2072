"""Prepares clinical data: reads sources, writes data sets, feeds batches."""
