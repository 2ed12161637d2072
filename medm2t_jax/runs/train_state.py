"""The state of training, as saved in checkpoints."""

from __future__ import annotations

from typing import Any

import jax
import optax
from flax import struct
from jaxtyping import Array, Int


@struct.dataclass
class TrainState:
  """Everything that changes in training, and the fitted state.

  Attributes:
    step: number of updates made, int32.
    params: parameters of the stage, updated by the optimizer.
    batch_stats: running statistics of BatchNorm, for the averaged parameters if there are
      any.
    fitted: statistics of the training subjects; constant.
    optimizer: state of the optax optimizer.
    averaged: with `ema_decay`, the moving average of the parameters, else empty.
  """

  step: Int[Array, '']
  params: Any
  batch_stats: Any
  fitted: Any
  optimizer: optax.OptState
  averaged: Any = ()

  @property
  def variables(self) -> dict[str, Any]:
    """The variables used for prediction, validation and later stages."""
    params = self.averaged if jax.tree.leaves(self.averaged) else self.params
    return {'params': params, 'batch_stats': self.batch_stats, 'fitted': self.fitted}
