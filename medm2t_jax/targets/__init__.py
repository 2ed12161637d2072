"""Kinds of prediction targets, one file each: loss, prior, predictions, blend, baselines.

Training, baselines and evaluation use this interface without knowing the kind; they only
distinguish the link of the outputs, and whether a label is a number or a vector.
"""

from __future__ import annotations

from data_pipeline.format.schema import Target
from medm2t_jax.targets.classes import Classes
from medm2t_jax.targets.kind import TargetKind
from medm2t_jax.targets.multilabel import Multilabel
from medm2t_jax.targets.regression import Regression

_KINDS: dict[str, type[TargetKind]] = {
  'binary': Classes,
  'multiclass': Classes,
  'multilabel': Multilabel,
  'regression': Regression,
}


def of(target: Target) -> TargetKind:
  """The target's kind, with everything that training, baselines and evaluation need."""
  return _KINDS[target.kind](target)
