"""What encoders and stages return (docs/design.md, "The model")."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class Encoded:
  """One modality of a batch, encoded.

  Attributes:
    tokens: the modality's own time tokens (windows, segments, pooled recordings).
    token_mask: false for padding and for windows before anything was seen.
    summary: the modality's vector.
    present: whether the row has the modality at all.
  """

  tokens: Float[Array, 'b t e']
  token_mask: Bool[Array, 'b t']
  summary: Float[Array, 'b e']
  present: Bool[Array, ' b']


@struct.dataclass
class Predictions:
  """One prediction per unit: sample, recording or segment.

  Outputs are class scores, to be put through log-softmax; or days (c = 1). float32.

  Attributes:
    logits: the prediction.
    heads: outputs that are trained, each by its own loss; of a plain decoder one.
    parts: what the prediction is the weighted sum of: the ensemble's mean, and the deep
      network where there is one; of a plain decoder one.
    owner: batch row whose label and weight the unit takes, int32.
    mask: whether the unit exists.
  """

  logits: Float[Array, 'u c']
  heads: Float[Array, 'h u c']
  parts: Float[Array, 'm u c']
  owner: Int[Array, ' u']
  mask: Bool[Array, ' u']


def of_decoder(
  logits: Float[Array, 'u c'], owner: Int[Array, ' u'], mask: Bool[Array, ' u']
) -> Predictions:
  """Predictions of a plain decoder."""
  return Predictions(logits, logits[jnp.newaxis], logits[jnp.newaxis], owner, mask)


def summary_as_token(summary: Float[Array, 'b e'], present: Bool[Array, ' b']) -> Encoded:
  """A modality whose only token is its summary."""
  return Encoded(summary[:, jnp.newaxis], present[:, jnp.newaxis], summary, present)
