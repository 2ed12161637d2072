"""Reads batches from a prepared data set."""
