"""Static variables: scaled numbers, one-hot categories, MLP (paper, Table B1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.encoded import Encoded, summary_as_token
from medm2t_jax.models.gates import gated
from medm2t_jax.models.layers.mlp import Mlp
from medm2t_jax.models.options import AttendOver


@dataclasses.dataclass(frozen=True)
class StaticConfig:
  """Sizes of the static encoder.

  Attributes:
    numeric: number of numeric columns.
    levels: number of levels per categorical column.
    mlp: hidden sizes.
    dropout: of the MLP.
    decoder: hidden width of the stage's decoder.
    decoder_dropout: its rate.
  """

  numeric: int
  levels: tuple[int, ...]
  mlp: tuple[int, ...]
  dropout: float
  decoder: int
  decoder_dropout: float


class StaticEncoder(nn.Module):
  """Static columns to one vector, which is also the only token.

  Fitted variables: `center` and `scale` (numeric), `level_seen` (columns, largest number
  of levels). A missing number is 0 after scaling, with an observed flag of 0. Missing
  levels, and levels that no training subject had, share one slot per column.

  Attributes:
    config: sizes.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  config: StaticConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  def setup(self):
    config = self.config
    columns, most = len(config.levels), max(config.levels, default=0)
    # Checkpoints hold no empty arrays, so variables without columns are not declared.
    if config.numeric:
      self.center = self.variable('fitted', 'center', jnp.zeros, (config.numeric,))
      self.scale = self.variable('fitted', 'scale', jnp.ones, (config.numeric,))
    if columns:
      shape = (columns, most)
      self.level_seen = self.variable('fitted', 'level_seen', jnp.ones, shape, bool)
    self.mlp = Mlp(config.mlp, config.dropout, self.axis_name, self.dtype)

  def __call__(
    self,
    static: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver = 'tokens',
  ) -> Encoded:
    """Encodes `numeric`, `numeric_mask` (b s) and `categorical` (b c).

    Args:
      static: docs/design.md, "The batch".
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
      attend_over: has no effect: the summary is the only token.
    """
    del attend_over
    present = jnp.any(static['numeric_mask'], axis=1) | jnp.any(
      static['categorical'] >= 0, axis=1
    )
    summary = self.mlp(self.inputs(static), valid & present, train=train)
    return summary_as_token(summary, present)

  def inputs(self, static: Mapping[str, Array]) -> Float[Array, 'b f']:
    """Scaled numbers, their observed flags, one-hot levels."""
    parts = []
    if self.config.numeric:
      observed = static['numeric_mask']
      scaled = static['numeric'] - self.center.value[jnp.newaxis]
      scaled = scaled / self.scale.value[jnp.newaxis]
      scaled = gated(static, 'numeric', jnp.where(observed, scaled, 0.0))
      parts += [scaled, observed.astype(jnp.float32)]
    for column, levels in enumerate(self.config.levels):
      level = static['categorical'][:, column]
      seen = jnp.asarray(self.level_seen.value)[column, jnp.maximum(level, 0)]
      level = jnp.where((level >= 0) & seen, level, levels)
      one_hot = jax.nn.one_hot(level, levels + 1)
      if 'categorical_gate' in static:
        missing = jax.nn.one_hot(jnp.full(level.shape, levels), levels + 1)
        gate = static['categorical_gate'][:, column, jnp.newaxis]
        one_hot = missing + gate * (one_hot - missing)
      parts.append(one_hot)
    return jnp.concatenate(parts, axis=1)
