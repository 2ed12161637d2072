"""Time windows of a modality, from `config.model.windows` or by default."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.time_units import unit_of
from medm2t_jax.modalities.shown import short
from medm2t_jax.models.options import ModelOptions

_EQUAL_WINDOWS = 8  # default number of equal parts of the observation window
_QUINTILES = (20.0, 40.0, 60.0, 80.0)


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
  name: str, options: ModelOptions, observation_hours: float | None
) -> Windows:
  """The windows of a modality.

  Without an entry in `config.model.windows`: equal parts of the observation window, or, if
  it has no fixed length, equal shares of the training entries.

  Args:
    name: of the modality.
    options: `config.model`.
    observation_hours: of the data set; None: the whole history.
  """
  if name not in options.windows:
    if observation_hours is None:
      return Windows('percentiles', _QUINTILES)
    places = range(1 - _EQUAL_WINDOWS, 0)
    cuts = tuple(observation_hours * place / _EQUAL_WINDOWS for place in places)
    return Windows('hours', cuts)
  return Windows(*options.windows[name])


def token_names(fitted: Mapping[str, Any]) -> Sequence[str]:
  """Names of windows as tokens, from the `time_cuts` of an encoder."""
  cuts = np.asarray(fitted.get('time_cuts', ()), np.float64)
  if not len(cuts):
    return ['all times']
  unit = unit_of(float(np.abs(cuts).max()))
  ends = [short(cut) for cut in (cuts / unit.hours).tolist()]
  between = [f'{a} to {b} {unit.symbol}' for a, b in itertools.pairwise(ends)]
  return [f'up to {ends[0]} {unit.symbol}', *between, f'after {ends[-1]} {unit.symbol}']
