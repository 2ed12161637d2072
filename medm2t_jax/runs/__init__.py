"""Runs: their workdir, checkpoints and splits, and how processes share one."""
