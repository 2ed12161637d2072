"""Return types of encoders and stages (docs/design.md, "The model")."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class Encoded:
  """One encoded modality of a batch.

  Attributes:
    tokens: the modality's own time tokens (windows, segments, pooled recordings).
    token_mask: False for padding and for windows before the first observation.
    summary: the modality's vector.
    present: whether the row has the modality.
  """

  tokens: Float[Array, 'b t e']
  token_mask: Bool[Array, 'b t']
  summary: Float[Array, 'b e']
  present: Bool[Array, ' b']


@struct.dataclass
class Predictions:
  """One prediction per unit: sample, recording or segment.

  Outputs are class scores before log-softmax, or a number (c = 1); float32.

  Attributes:
    logits: the prediction.
    heads: outputs that are trained, each with its own loss; one for a plain decoder.
    parts: outputs of which the prediction is the weighted sum: the ensemble's mean, and the
      deep network if there is one; one for a plain decoder.
    owner: batch row whose label and weight the unit has, int32.
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
