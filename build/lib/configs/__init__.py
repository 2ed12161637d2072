"""Experiments: one file a task, `get_config(variant)` returns a locked ConfigDict."""
