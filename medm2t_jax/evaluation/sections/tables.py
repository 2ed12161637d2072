"""Rows of tables that several sections have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.metrics import NAMES
from medm2t_jax.report.text import count, in_brackets, interval, number

INTERVAL = '95 % interval'
MOST_DRAWN = 8  # outcomes with curves of their own


def estimates(
  metrics: Mapping[str, Any], names: Sequence[str], unit: str = ''
) -> list[tuple[str, ...]]:
  """Name, value, interval, n and events of some metrics."""
  titles = {**NAMES, 'slope': 'Slope', 'intercept': f'Intercept{in_brackets(unit)}'}
  return [_named(titles[name], metrics[name]) for name in names]


def _named(title: str, metric: Mapping[str, Any]) -> tuple[str, ...]:
  return (
    title,
    number(metric['value']),
    interval(metric),
    count(metric['n']),
    count(metric['events']),
  )


def limits_of(
  metrics: Sequence[Mapping[str, Any]], least: float | None, most: float | None
) -> tuple[float, float]:
  """The ends of an axis on which all of these lie, with their intervals."""
  ends = [
    value
    for metric in metrics
    for value in (metric['value'], metric['low'], metric['high'])
    if value is not None
  ] or [0.0, 1.0]
  step = 0.1 if max(ends) <= 1 else 1.0
  low = np.floor(min(ends) / step) * step if least is None else least
  high = np.ceil(max(ends) / step) * step if most is None else most
  return float(low), float(high)
