"""Evaluation of a run: predictions, metrics and the report."""
