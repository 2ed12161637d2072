"""Time windows of a modality, from `config.model.windows` or by default."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.time_units import unit_of
from medm2t_jax.modalities.shown import short
from medm2t_jax.models.hierarchical_fusion import HierarchyConfig
from medm2t_jax.models.options import ModelOptions

_EQUAL_WINDOWS = 8  # default number of equal parts of the observation window
_QUINTILES = 5  # without one: of equal shares of the entries


@dataclasses.dataclass(frozen=True)
class Windows:
  """Cuts between time windows.

  Attributes:
    kind: 'percentiles' of the training entries' times, or 'hours' relative to the
      prediction time.
    cuts: ascending.
  """

  kind: str
  cuts: tuple[float, ...]

  @property
  def count(self) -> int:
    """Number of windows: one more than cuts."""
    return len(self.cuts) + 1

  def fitted(self, time: np.ndarray) -> np.ndarray:
    """Cuts in hours, given the times of training entries; zeros if there are no entries."""
    if self.kind == 'hours':
      return np.asarray(self.cuts, np.float64)
    return np.percentile(time, self.cuts) if len(time) else np.zeros(len(self.cuts))


def windows_of(
  name: str,
  options: ModelOptions,
  observation_hours: float | None,
  parts: int | None = None,
) -> Windows:
  """The windows of a modality.

  Without an entry in `config.model.windows`: equal parts of the observation window, or, if
  it has no fixed length, equal shares of the training entries.

  Args:
    name: of the modality.
    options: `config.model`.
    observation_hours: of the data set; None: the whole history.
    parts: how many by default; None: eight, or five of equal shares.
  """
  if name not in options.windows:
    if observation_hours is None:
      count = parts or _QUINTILES
      return Windows('percentiles', tuple(100.0 * k / count for k in range(1, count)))
    count = parts or _EQUAL_WINDOWS
    cuts = tuple(observation_hours * place / count for place in range(1 - count, 0))
    return Windows('hours', cuts)
  return Windows(*options.windows[name])


def token_names(
  fitted: Mapping[str, Any], hierarchy: HierarchyConfig | None = None
) -> Sequence[str]:
  """Names of windows as tokens, or of a hierarchy's longest segments of windows.

  They are made of the `time_cuts` of an encoder.
  """
  cuts = np.asarray(fitted.get('time_cuts', ()), np.float64)
  if not len(cuts):
    return ['all times']
  unit = unit_of(float(np.abs(cuts).max()))
  ends = [short(cut) for cut in (cuts / unit.hours).tolist()]
  # Segments of shorter scales lie inside.
  length = max(micro.length for micro in hierarchy.micro) if hierarchy else 1
  starts = hierarchy.starts(length).tolist() if hierarchy else range(len(cuts) + 1)
  names = []
  for start in starts:
    first = ends[start - 1] if start else None
    last = ends[start + length - 1] if start + length - 1 < len(cuts) else None
    if first is None and last is None:
      names.append('all times')
    elif first is None:
      names.append(f'up to {last} {unit.symbol}')
    elif last is None:
      names.append(f'after {first} {unit.symbol}')
    else:
      names.append(f'{first} to {last} {unit.symbol}')
  return names
