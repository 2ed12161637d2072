"""The state of a training, as checkpoints keep it."""

from __future__ import annotations

from typing import Any

import optax
from flax import struct
from jaxtyping import Array, Int


@struct.dataclass
class TrainState:
  """All that changes in training, and the fitted state that travels with it.

  Attributes:
    step: number of updates made, int32.
    params: parameters of the stage; with `ema_decay`, the averaged ones.
    batch_stats: running statistics of BatchNorm.
    fitted: statistics of the training subjects; constant.
    optimizer: state of the optax optimizer.
  """

  step: Int[Array, '']
  params: Any
  batch_stats: Any
  fitted: Any
  optimizer: optax.OptState

  @property
  def variables(self) -> dict[str, Any]:
    return {'params': self.params, 'batch_stats': self.batch_stats, 'fitted': self.fitted}
