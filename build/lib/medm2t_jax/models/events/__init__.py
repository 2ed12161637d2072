"""Sparse time series: encoding of irregular events."""
