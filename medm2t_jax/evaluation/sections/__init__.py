"""The sections of the report, one file each (`section.py` is their contract)."""

from __future__ import annotations

from collections.abc import Sequence

from medm2t_jax.evaluation.sections import (
  baselines,
  calibration,
  card,
  decisions,
  discrimination,
  explanation,
  missing_modality,
  robustness,
  subgroups,
  training,
)
from medm2t_jax.evaluation.sections.section import SectionModule

# In the order of the report.
SECTIONS: tuple[SectionModule, ...] = (
  discrimination,
  baselines,
  calibration,
  decisions,
  subgroups,
  missing_modality,
  robustness,
  explanation,
  training,
  card,
)
# A trained model carries what these compute, whatever the report shows.
ALWAYS_COMPUTED = (discrimination, calibration)


def chosen(names: Sequence[str]) -> tuple[SectionModule, ...]:
  """The sections of some names, in the order of the report."""
  return tuple(each for each in SECTIONS if each.NAME in names)
