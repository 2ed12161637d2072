"""Experiments, one file per task; `get_config(variant)` returns a locked ConfigDict."""
