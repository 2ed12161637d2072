"""How the explorer writes predictions, times and shares."""

from __future__ import annotations

from data_pipeline.format.schema import Target
from data_pipeline.format.time_units import Unit

NARROW = '\N{NO-BREAK SPACE}'


def share(value: float) -> str:
  """A probability as a percentage, with one decimal below ten."""
  percent = 100 * value
  if percent < 0.1:
    return f'under 0.1{NARROW}%'
  if percent > 99.9:
    return f'over 99.9{NARROW}%'
  return f'{percent:.1f}{NARROW}%' if percent < 9.95 else f'{percent:.0f}{NARROW}%'


def value(number: float, target: Target) -> str:
  """A prediction: a probability, or a number with its unit."""
  if target.numeric:
    return f'{number:.1f}{NARROW}{target.unit}'.strip().replace('-', '\N{MINUS SIGN}')
  return share(number)


def moment(hours: float, unit: Unit) -> str:
  """A moment, for example '6 hours before the prediction time'."""
  if hours == 0:
    return 'the prediction time'
  count = -hours / unit.hours
  text = f'{count:.0f}' if abs(count - round(count)) < 1e-6 else f'{count:.1f}'
  name = unit.name.removesuffix('s') if text == '1' else unit.name
  return f'{text} {name} before the prediction time'
