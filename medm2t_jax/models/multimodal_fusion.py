"""Multimodal head: shared space, Bi-Modal Attention, decoder input (paper section 3.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.bimodal_attention import BiModalAttention, pairs
from medm2t_jax.models.encoded import Encoded
from medm2t_jax.models.layers.dropout import Dropout
from medm2t_jax.models.options import Fusion, SharedEncoder


@dataclasses.dataclass(frozen=True)
class FusionConfig:
  """Sizes and options of a multimodal head.

  Attributes:
    width: of the shared space.
    heads: of every cross attention block.
    fusion: how both directions of a pair are combined; 'none': no Bi-Modal Attention,
      only the modality vectors.
    shared_encoder: 'before' Bi-Modal Attention, or 'after' it, on the way to the
      decoder.
    shared_dropout: after the shared encoder.
    attention_dropout: inside the blocks.
    modality_dropout: share of present modalities hidden in training.
    pairs_from_zero: whether the vectors of each pair are multiplied by a learnt factor that
      starts at 0, so that training starts from the concatenated modalities.
  """

  width: int
  heads: int
  fusion: Fusion
  shared_encoder: SharedEncoder
  shared_dropout: float
  attention_dropout: float
  modality_dropout: float
  pairs_from_zero: bool

  @property
  def pair_vectors(self) -> int:
    """Number of vectors per pair of modalities."""
    return {'none': 0, 'concat': 2}.get(self.fusion, 1)


class MultimodalFusion(nn.Module):
  """Fuses encoded modalities into the decoder's input.

  Attributes:
    config: sizes and options.
    dtype: of the computation.
  """

  config: FusionConfig
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, encoded: Mapping[str, Encoded], *, train: bool) -> Float[Array, 'b f']:
    """Fuses all modalities of each row.

    Args:
      encoded: by modality, in a fixed order.
      train: whether to use dropout and modality dropout.

    Returns:
      All modality vectors and all pair vectors, concatenated.
    """
    config = self.config
    present = jnp.stack([one.present for one in encoded.values()])
    if train and config.modality_dropout:
      present = self._drop_modalities(present)
    # Summaries and tokens of all modalities are concatenated, so that the shared encoder is
    # one product without padding.
    parts = []
    for name, one in encoded.items():
      x = jnp.concatenate([one.summary[:, jnp.newaxis], one.tokens], axis=1)
      parts.append(nn.Dense(config.width, dtype=self.dtype, name=f'project_{name}')(x))
    linear = nn.Dense(config.width, dtype=self.dtype, name='shared')
    dropout = Dropout(config.shared_dropout)
    shared = lambda x: dropout(nn.relu(linear(x)), deterministic=not train)
    if config.shared_encoder == 'before':
      ends = np.cumsum([part.shape[1] for part in parts])[:-1]
      parts = jnp.split(shared(jnp.concatenate(parts, axis=1)), ends, axis=1)
    summaries = jnp.stack([part[:, 0] for part in parts])
    longest = max(one.tokens.shape[1] for one in encoded.values())
    pad = lambda x: jnp.pad(
      x, ((0, 0), (0, longest - x.shape[1])) + ((0, 0),) * (x.ndim - 2)
    )
    tokens = jnp.stack([pad(part[:, 1:]) for part in parts])
    masks = [pad(one.token_mask) for one in encoded.values()]
    fused = jnp.zeros((0, present.shape[1], 1, config.width), summaries.dtype)
    if config.fusion != 'none':
      fused = BiModalAttention(
        config.heads,
        config.attention_dropout,
        config.fusion,
        self.dtype,
        name='bimodal',
      )(summaries, tokens, jnp.stack(masks), present, train=train)
    if config.shared_encoder == 'after' and not len(fused):
      summaries = shared(summaries)
    elif config.shared_encoder == 'after':
      summaries, fused = shared(summaries), shared(fused)
      # Masked again, because the bias of the shared encoder also reaches absent pairs.
      both = [present[i] & present[j] for i, j in pairs(len(present))]
      fused = jnp.where(jnp.stack(both)[:, :, jnp.newaxis, jnp.newaxis], fused, 0.0)
    if config.pairs_from_zero and len(fused):
      factor = self.param('pair_factor', nn.initializers.zeros, (len(fused),))
      fused = fused * factor.astype(fused.dtype)[:, jnp.newaxis, jnp.newaxis, jnp.newaxis]
    absent = self.param(
      'absent', nn.initializers.normal(0.02), (len(present), config.width)
    )
    summaries = jnp.where(
      present[:, :, jnp.newaxis],
      summaries,
      absent[:, jnp.newaxis].astype(summaries.dtype),
    )
    rows = present.shape[1]
    vectors = [
      jnp.moveaxis(summaries, 0, 1).reshape(rows, -1),
      jnp.moveaxis(fused, 0, 1).reshape(rows, -1),
    ]
    return jnp.concatenate(vectors, axis=-1)

  def _drop_modalities(self, present: Bool[Array, 'k b']) -> Bool[Array, 'k b']:
    """Hides modalities at random; a row that would lose all of them keeps them."""
    keep = jax.random.bernoulli(
      self.make_rng('dropout'), 1 - self.config.modality_dropout, present.shape
    )
    kept = present & keep
    return jnp.where(jnp.any(kept, axis=0, keepdims=True), kept, present)
