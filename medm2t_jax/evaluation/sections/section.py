"""What a section of the report is: a module with NAME and four functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.report.blocks import Section
from medm2t_jax.runs.run import Run
from medm2t_jax.training.steps import Predictor

if TYPE_CHECKING:
  from medm2t_jax.evaluation.results import Evaluation


@dataclasses.dataclass(frozen=True)
class Tested:
  """The test predictions that every section has. Letter: n test samples of a fold.

  Attributes:
    folds: that are evaluated, their first runs.
    inputs: of the baselines, of each fold.
    rows: of each fold, the index rows that it tests, ascending (n,).
    predictions: of each fold, probabilities (n c) or numbers (n,).
    alone: of each fold, those of the network alone; empty where no section needs them, or
      nothing is blended with it.
  """

  folds: Sequence[Run]
  inputs: Sequence[Inputs]
  rows: Sequence[np.ndarray]
  predictions: Sequence[np.ndarray]
  alone: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a section wants to have predicted besides: one of the first three, or nothing.

  Attributes:
    without: name -> modalities that are masked. What several sections need is predicted
      once, in one pass over the records with the predictions that all have. `given` of the
      section is then name -> predictions of all folds.
    of_fold: makes something of the final run of a fold and what predicts with it; `given`
      is a list of these.
    of_all: makes `given` of all folds.
    alone: whether `Tested` has the network without its blend: from the same forward pass.
  """

  without: Mapping[str, tuple[str, ...]] | None = None
  of_fold: Callable[[Run, Predictor], Any] | None = None
  of_all: Callable[[Tested], Any] | None = None
  alone: bool = False


class SectionModule(Protocol):
  """The contract."""

  @property
  def NAME(self) -> str:
    """Of the section, in the config, and its anchor on the page."""
    ...

  def needs(self, folds: Sequence[Run], /) -> Needs:
    """What has to be predicted for it.

    Args:
      folds: of one experiment.
    """
    ...

  def compute(self, evaluation: Evaluation, /) -> dict[str, Any]:
    """Its entries of `metrics.json`.

    Args:
      evaluation: with the entries of the sections before it; `given[NAME]` holds what
        `needs` asked for, if that was predicted.

    Returns:
      Name of an entry -> its content, JSON-able but for NumPy's numbers and arrays. An
      estimate is that of `metrics.bootstrap.estimate`.

    Raises:
      DataError: what was predicted does not fit the test rows.
    """
    ...

  def verdict(self, evaluation: Evaluation, /) -> str | None:
    """One sentence in plain English: what its numbers mean, or why they cannot be judged.

    It is the first line of the section, and in `metrics.json` under 'verdicts'; None where
    `render` shows nothing.

    Args:
      evaluation: with the entries of this section.
    """
    ...

  def render(self, evaluation: Evaluation, /) -> Section | None:
    """What is shown below the verdict; None where the section does not apply."""
    ...
