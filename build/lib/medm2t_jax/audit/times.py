"""Check: nothing is later than the prediction."""

from __future__ import annotations

import numpy as np

from medm2t_jax.audit.check import Check
from medm2t_jax.audit.scan import Scan

_ROUNDING = 1e-6  # hours: steps times step_hours


def check(scan: Scan) -> list[Check]:
  """Times of events (medications are events) and recordings, and the extent of grids."""
  checks = []
  schema = scan.dataset.schema
  for name, late in scan.late.items():
    latest = scan.latest[name]
    when = f'the latest at {latest:g} h' if np.isfinite(latest) else 'there are none'
    checks.append(
      Check(
        f'times, {name}',
        late == 0,
        late,
        f'{late} {schema.modalities[name].noun} are later than their prediction, or '
        f'without a time ({when}, 0 is the prediction)',
      )
    )
  window = schema.observation_hours
  for name, modality in schema.modalities.items():
    extent = modality.extent_hours
    if extent is None:
      continue
    checks.append(
      Check(
        f'times, {name}',
        window is None or extent <= window + _ROUNDING,
        extent,
        f'its cells cover {extent:g} h up to the prediction; observed were '
        f'{"all hours" if window is None else f"{window:g} h"}: longer ones would reach '
        'beyond the prediction',
      )
    )
  return checks
