"""Converts columns to chunks of a few numbers each, 0 if the column is unknown.

Letters: b rows, n columns, p numbers of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from medm2t_jax.models.trunk.columns import ColumnKind

PIECES = 8  # of the thermometer, between quantiles of the training samples
SIZE = PIECES + 2
_CLIP = 5.0  # standard deviations
_SCALE = 0.5  # matches the pieces, which are between -1 and 1


class Chunks(nn.Module):
  """Chunks of one modality.

  A chunk has a thermometer over the column's quantiles, centred at its mean over training
  samples, so that absence is neutral; whether it is known, if that is informative; and its
  standardised value. A column without training samples is 0.

  Fitted variables: `column_knots` (n 9), `column_mean` (n 8) of the thermometer,
  `column_center` and `column_scale` (n), `column_flagged` (n).

  Attributes:
    kind: of the modality.
  """

  kind: ColumnKind

  @nn.compact
  def __call__(self, arrays: Mapping[str, Array], rows: int) -> Float[Array, 'b n p']:
    """Chunks of the modality's arrays of a batch (docs/design.md, "The batch").

    Args:
      arrays: of the modality.
      rows: number of samples in the batch.
    """
    count = self.kind.count
    fitted = lambda name, *shape: self.variable('fitted', name, jnp.zeros, shape)
    knots = fitted('column_knots', count, PIECES + 1).value
    mean = fitted('column_mean', count, PIECES).value
    center = fitted('column_center', count).value
    scale = fitted('column_scale', count).value
    shape = (count,)
    flagged = self.variable('fitted', 'column_flagged', jnp.zeros, shape, bool).value

    value, known, gate = self.kind(arrays, rows)
    lead = lambda x: x[jnp.newaxis]
    last = lambda x: x[..., jnp.newaxis]
    step = jnp.diff(knots)
    filled = (last(value) - lead(knots[:, :-1])) / lead(jnp.where(step > 0, step, 1.0))
    filled = jnp.where(lead(step > 0), jnp.clip(filled, 0.0, 1.0), 0.0) - lead(mean)
    standard = (value - lead(center)) / lead(jnp.where(scale > 0, scale, 1.0))
    standard = jnp.clip(standard, -_CLIP, _CLIP) * _SCALE
    standard = jnp.where(lead(scale > 0), standard, 0.0)
    content = jnp.concatenate([filled, last(standard)], axis=-1)
    if gate is not None:
      content = content * last(gate)
    content = jnp.where(last(known), content, 0.0)
    flag = last(known & lead(flagged)).astype(content.dtype)
    return jnp.concatenate([content, flag], axis=-1)
