"""Encodes notes, given as vectors of a text model: a mean per time window, then an MLP.

Letters: b rows, n notes, v numbers of a note's vector, w windows, e embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.encoded import Encoded, summary_as_token
from medm2t_jax.models.layers.mlp import Mlp
from medm2t_jax.models.layers.time_windows import fitted_cuts, window_of
from medm2t_jax.models.options import AttendOver


@dataclasses.dataclass(frozen=True)
class NotesConfig:
  """Sizes of the encoder of notes.

  Attributes:
    vector: numbers of a note's vector.
    windows: number of time windows.
    width: of embeddings and the summary.
    dropout: of all MLPs.
    decoder: hidden width of the stage's decoder.
    decoder_dropout: its rate.
  """

  vector: int
  windows: int
  width: int
  dropout: float
  decoder: int
  decoder_dropout: float


class NotesEncoder(nn.Module):
  """Notes to windows to one vector.

  A note's scaled vector, concatenated with its age, goes through an MLP; a window has the
  mean of all notes so far, and before the first note a learned vector. The summary is
  computed from the mean of all windows since the first note, concatenated with the last
  window.

  Fitted variables: `center`, `scale` (v), `time_cuts` (w - 1), hours (absent with one
  window).

  Attributes:
    config: sizes.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  config: NotesConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    notes: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver = 'tokens',
  ) -> Encoded:
    """Encodes the notes of each row.

    Args:
      notes: `vector` (b n v), `time`, `mask` (b n); docs/design.md.
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
      attend_over: whether tokens are the windows, or only the summary.
    """
    config, shared = self.config, (self.axis_name, self.dtype)
    mask, present = notes['mask'], jnp.any(notes['mask'], axis=1)
    rows, count = mask.shape
    units = (valid[:, jnp.newaxis] & mask).reshape(-1)
    x = self._inputs(notes).reshape(rows * count, -1)
    x = Mlp((config.width,), config.dropout, *shared, name='note')(x, units, train=train)
    windows, seen = self._windows(x.reshape(rows, count, -1), notes)
    known = seen.astype(jnp.float32)
    share = known / jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1)
    mean = jnp.einsum('bw,bwe->be', share.astype(windows.dtype), windows)
    joined = jnp.concatenate([mean, windows[:, -1]], axis=-1)
    mlp = Mlp((config.width,), config.dropout, *shared, name='mlp')
    summary = mlp(joined, valid & present, train=train)
    if attend_over == 'summary':
      return summary_as_token(summary, present)
    tokens = nn.Dense(config.width, dtype=self.dtype, name='token_linear')(windows)
    return Encoded(tokens, seen, summary, present)

  def _inputs(self, notes: Mapping[str, Array]) -> Float[Array, 'b n f']:
    """Scaled vectors, and the logarithm of the age in hours."""
    shape = (self.config.vector,)
    center = self.variable('fitted', 'center', jnp.zeros, shape).value
    scale = self.variable('fitted', 'scale', jnp.ones, shape).value
    lead = lambda x: x[jnp.newaxis, jnp.newaxis]
    scaled = (notes['vector'] - lead(center)) / lead(scale)
    if 'note_gate' in notes:
      scaled = scaled * notes['note_gate'][..., jnp.newaxis]
    age = jnp.log1p(-notes['time'])[..., jnp.newaxis]
    return jnp.concatenate([scaled, age], axis=-1).astype(self.dtype)

  def _windows(
    self, x: Float[Array, 'b n e'], notes: Mapping[str, Array]
  ) -> tuple[Float[Array, 'b w e'], Bool[Array, 'b w']]:
    """The mean of all notes up to the end of each window, and whether there are any."""
    config = self.config
    window = window_of(notes['time'], fitted_cuts(self, config.windows))
    so_far = (
      window[:, jnp.newaxis] <= jnp.arange(config.windows)[jnp.newaxis, :, jnp.newaxis]
    )
    weight = (so_far & notes['mask'][:, jnp.newaxis]).astype(jnp.float32)
    count = jnp.sum(weight, axis=-1)
    total = jnp.einsum('bwn,bne->bwe', weight, x.astype(jnp.float32))
    mean = total / jnp.maximum(count, 1)[..., jnp.newaxis]
    none = self.param('none', nn.initializers.normal(0.02), (config.width,))
    seen = count > 0
    windows = jnp.where(seen[..., jnp.newaxis], mean, none[jnp.newaxis, jnp.newaxis])
    return windows.astype(self.dtype), seen
