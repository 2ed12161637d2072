"""Check: no input is later than the prediction time."""

from __future__ import annotations

import numpy as np

from medm2t_jax.audit.check import Check
from medm2t_jax.audit.scan import Scan

_ROUNDING = 1e-6  # hours: steps times step_hours


def check(scan: Scan) -> list[Check]:
  """Checks times of events (including medications) and recordings, and extents of grids."""
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
        f'{late} {schema.modalities[name].noun} are later than the prediction time or '
        f'have no time ({when}; 0 is the prediction time)',
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
        f'its cells cover {extent:g} h up to the prediction time, the observation window '
        f'{"any length" if window is None else f"{window:g} h"}: longer cells would reach '
        'beyond the prediction time',
      )
    )
  return checks
