"""Time windows between fitted cuts.

Letters: c cuts between c + 1 windows.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def window_of(
  time: Float[Array, '*shape'], cuts: Float[Array, ' c']
) -> Int[Array, '*shape']:
  """Window w holds cuts[w - 1] < time <= cuts[w].

  Args:
    time: hours relative to the prediction time.
    cuts: in the same unit, ascending; empty for one window.
  """
  lead = (1,) * time.ndim
  return jnp.sum(cuts.reshape(*lead, -1) < time[..., jnp.newaxis], axis=-1)


def fitted_cuts(module: nn.Module, windows: int) -> Float[Array, ' c']:
  """The fitted variable `time_cuts` of a compact module, in hours; empty for one window."""
  if windows == 1:  # checkpoints hold no empty arrays
    return jnp.zeros(0)
  cuts = module.variable('fitted', 'time_cuts', jnp.zeros, (windows - 1,))
  return jnp.asarray(cuts.value)
