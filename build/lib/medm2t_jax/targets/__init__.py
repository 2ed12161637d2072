"""What can be predicted, one file a kind: loss, prior, predictions, blend, baselines.

Training, baselines and evaluation ask a kind, not which one it is; all that they tell apart
is the link of the outputs, and whether a label is a number or a vector.
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
  """The target with all that training, baselines and evaluation ask of it."""
  return _KINDS[target.kind](target)
