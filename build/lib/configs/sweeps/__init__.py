"""Sweeps over the experiments of `configs`, for `python -m medm2t_jax.sweep`."""
