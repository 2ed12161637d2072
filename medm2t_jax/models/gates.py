"""Gates in [0, 1] on the contribution of a sample's values; unused in training.

A batch may have float32 gates beside an array, with the same shape. With all gates at 1 the
prediction is that of the batch without gates; closing a gate removes its value from the
computation, while presence masks, counts and times are unchanged:

  `token_gate` (b n)            events: 0 turns the event into the encoder's 'none'; with
                                item statistics, it sets its encodings to 0
  `value_gate` (b g v)          grids: 0 sets the observed value to the median
  `numeric_gate` (b s)          static: 0 sets the number to the median
  `categorical_gate` (b c)      static: 0 selects the slot of a missing level
  `signal_gate` (m s l)         ECG: 0 is a flat line
  `measurements_gate` (m 9)     ECG: 0 sets the measurement to the median
  `terms_gate` (m t)            ECG: 0 removes the term's embedding from the mean
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Num

Gates = dict[str, dict[str, Any]]
ShapedLike = Mapping[str, Mapping[str, str]]


def gated(
  arrays: Mapping[str, Array], name: str, x: Num[Array, '*shape']
) -> Num[Array, '*shape']:
  """`x` times the gates `name` of a modality; `x` unchanged if it has none."""
  gate = arrays.get(f'{name}_gate')
  return x if gate is None else x.astype(gate.dtype) * gate


def open_gates(batch: Mapping[str, Any], shaped_like: ShapedLike) -> Gates:
  """Modality -> its gates, all 1.

  Args:
    batch: without the device axis.
    shaped_like: modality -> name of a gate -> the array whose shape it has.
  """
  return {
    name: {
      f'{gate}_gate': jnp.ones(batch[name][array].shape, jnp.float32)
      for gate, array in gates.items()
    }
    for name, gates in shaped_like.items()
  }


def with_gates(batch: Mapping[str, Any], gates: Gates) -> dict[str, Any]:
  """The batch with the gates beside its arrays."""
  return {**batch, **{name: {**batch[name], **each} for name, each in gates.items()}}
