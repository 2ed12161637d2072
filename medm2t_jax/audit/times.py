"""Check: nothing is later than the prediction."""

from __future__ import annotations

import numpy as np

from medm2t_jax.audit.check import Check
from medm2t_jax.audit.scan import Scan

_ROUNDING = 1e-6  # hours: steps times step_hours


def check(scan: Scan) -> list[Check]:
  """Times of events (medications are events) and recordings, and the extent of grids."""
  checks = []
  for name, late in scan.late.items():
    latest = scan.latest[name]
    when = f'the latest at {latest:g} h' if np.isfinite(latest) else 'there are none'
    checks.append(
      Check(
        f'times, {name}',
        late == 0,
        late,
        f'{late} {"recordings" if name == "ecg" else "events"} are later than their '
        f'prediction, or without a time ({when}, 0 is the prediction)',
      )
    )
  schema = scan.dataset.schema
  for name, grid in schema.grids.items():
    extent, window = grid.steps * grid.step_hours, schema.observation_hours
    checks.append(
      Check(
        f'times, {name}',
        window is None or extent <= window + _ROUNDING,
        extent,
        f'its {grid.steps} cells of {grid.step_hours:g} h cover {extent:g} h up to the '
        f'prediction; observed were {"all hours" if window is None else f"{window:g} h"}: '
        'a longer grid would reach beyond the prediction',
      )
    )
  return checks
