"""Turns staged tables into a prepared data set."""
