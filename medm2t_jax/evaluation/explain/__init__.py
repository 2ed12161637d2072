"""Explains predictions: pages of single test samples, and importance over many.

`config.evaluation.explained` test samples get a page each, and `explained_globally` random
samples determine the importance of every variable. Both are explained together, a few rows
at a time, by one compiled function per bucket, with as many nodes as a sample needs until
its attributions add up; `explanation_sections.py` draws the results. The explained model is
the network in its blend.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from data_pipeline.format.subjects import hash_subject
from medm2t_jax import targets
from medm2t_jax.evaluation.explain.attention import attention_of, attention_step
from medm2t_jax.evaluation.explain.choose import Verdict, choose_samples
from medm2t_jax.evaluation.explain.explanation import ExplainedSample, Explanation
from medm2t_jax.evaluation.random_rows import random_rows
from medm2t_jax.inference import blend
from medm2t_jax.inference.attribution.integrated_gradients import (
  LEVELS,
  Completeness,
  Doubling,
  Part,
  level_of,
)
from medm2t_jax.inference.attribution.rows import (
  integrated_of,
  items_of,
  one_row,
  together,
  unpacked,
)
from medm2t_jax.inference.attribution.simple_models import SimpleModels
from medm2t_jax.inference.attribution.whole_model import STAGE, end_of, explain_step
from medm2t_jax.modalities.shown import ItemAttribution
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run

_AT_ONCE = 8  # rows per computation
_IN_MEMORY = 128  # largest number of samples in progress

_LOGGER = logging.getLogger(__name__)


def explain(
  folds: Sequence[Run], rows: Sequence[np.ndarray], predictions: Sequence[np.ndarray]
) -> Explanation | None:
  """Explains test samples; None if the configuration requests none.

  Only the first process works; the others wait and return nothing to show.

  Args:
    folds: of one experiment, with complete multimodal stages.
    rows: of each fold, the index rows that it tests.
    predictions: of each fold, their predictions (n c) or (n).

  Raises:
    DataError: a fold's multimodal stage is not complete.
  """
  asked = folds[0].config.evaluation
  if not asked.explained and not asked.explained_globally:
    return None
  _LOGGER.info(
      'explaining %d samples with a page and at most %d without one',
      asked.explained, asked.explained_globally,
  )  # fmt: skip
  dataset = folds[0].dataset
  row, prediction = np.concatenate(rows), np.concatenate(predictions)
  fold_of = np.repeat(np.arange(len(folds)), [len(each) for each in rows])
  kind = targets.of(dataset.schema.target)
  chosen = choose_samples(prediction, dataset.index['label'][row], asked.explained, kind)
  share = -(-asked.explained_globally // len(folds))
  steps = _Steps(
    explain_step(folds[0].model),
    attention_step(folds[0].model),
  )
  patients: dict[int, ExplainedSample] = {}
  samples: list[list[ItemAttribution]] = []
  completeness: list[Completeness] = []
  for place, fold in enumerate(folds):
    # All processes restore together.
    variables, _ = restore_best(fold.final, STAGE)
    explainer = _Explainer(fold.final, steps, variables, blend.restore(fold))
    pages = {
      int(row[i]): _Page(i, verdict, prediction[i])
      for i, verdict in chosen
      if fold_of[i] == place
    }
    sampled = random_rows(fold, rows[place], share)

    def work(
      explainer: _Explainer = explainer,
      pages: Mapping[int, _Page] = pages,
      sampled: np.ndarray = sampled,
    ) -> None:
      for page, batch, each in explainer.samples(pages, sampled):
        if page is not None:
          patients[page.place] = explainer.page(page, batch, each)
        else:
          samples.append(explainer.items(batch, each))
          completeness.append(each.completeness)

    distributed.from_first(work)
  found = Explanation(
    patients=[patients[i] for i, _ in chosen if i in patients],
    explained=kind.explained_output(None),
    samples=samples,
    completeness=completeness,
  )
  _warn(found)
  return found


class _Steps(NamedTuple):
  """Compiled functions that all folds share."""

  integrated: Callable[..., Part]
  attention: Callable[..., dict[str, Any]]


class _Page(NamedTuple):
  """A sample that gets a page: its index among all test samples, and why."""

  place: int
  verdict: Verdict
  prediction: np.ndarray


@dataclasses.dataclass
class _Wanted:
  """A sample in progress.

  Attributes:
    row: of the index.
    page: that it gets, or None.
    found: its attributions from the nodes so far.
  """

  row: int
  page: _Page | None
  found: Doubling = dataclasses.field(default_factory=Doubling)


class _Explainer:
  """Explains samples of one fold on one device."""

  def __init__(
    self,
    fold: Run,
    steps: _Steps,
    variables: Mapping[str, Any],
    fitted: Mapping[str, Any] | None,
  ):
    """Takes the network of a fold.

    Args:
      fold: its final run.
      steps: shared by the folds.
      variables: of the network.
      fitted: its blend, if it has one.
    """
    self._fold = fold
    self._steps = steps
    self._simple = SimpleModels(fold.model_config, [fitted])
    self._members = self._simple.members([variables])

  def samples(
    self, pages: Mapping[int, _Page], sampled: np.ndarray
  ) -> Iterator[tuple[_Page | None, Batch, Doubling]]:
    """Explains index rows: those of `pages`, and, with page None, those of `sampled`.

    A page explains the target's favourite output for the sample; for `sampled` all outputs
    are explained together (`targets.TargetKind.explained`). A row may be both. Samples are
    yielded as soon as their attributions add up.
    """
    wanted = [_Wanted(row, page) for row, page in pages.items()]
    wanted += [_Wanted(int(row), None) for row in sampled]
    progress = tqdm(
      desc=f'fold {self._fold.fold} explained',
      total=len(wanted),
      unit='sample',
      leave=False,
    )
    with progress:
      for start in range(0, len(wanted), _IN_MEMORY):
        for found in self._integrated(wanted[start : start + _IN_MEMORY]):
          yield found
          progress.update()

  def _integrated(
    self, wanted: Sequence[_Wanted]
  ) -> Iterator[tuple[_Page | None, Batch, Doubling]]:
    """Doubles the nodes of every sample until its attributions add up."""
    fold = self._fold
    modalities = fold.modalities_of(STAGE)
    recordings = fold.config.data.max_recordings
    for level in range(LEVELS + 1):
      waiting: dict[int, list[_Wanted]] = {}
      for each in wanted:
        if not each.found.over:
          waiting.setdefault(each.row, []).append(each)
      if not waiting:
        return
      rows = np.array([row for row, each in waiting.items() for _ in each])
      plan = fold.reader.plan(rows, modalities, _AT_ONCE, devices=1)
      for stacked in fold.reader.read_here(plan, modalities):
        batch = jax.tree.map(lambda x: x[0], stacked)
        found = np.flatnonzero(batch['row'] >= 0)
        taken = [waiting[int(batch['row'][place])].pop(0) for place in found]
        scores = self._simple.said(batch, found).scores(len(batch['row']))
        classes = self._classes(batch, found, taken)
        step = functools.partial(
          self._steps.integrated, self._members, batch, scores, classes
        )
        integrated = level_of(step, level)
        for place, each in zip(found, taken, strict=True):
          its_own = integrated_of(integrated, batch, int(place), recordings)
          its_scores = jax.tree.map(lambda x, place=place: x[place], scores)
          each.found.add(level, its_own, end_of(its_own.slopes, its_scores))
          if each.found.over:
            yield each.page, one_row(batch, int(place), recordings), each.found
            each.found = Doubling(over=True)

  def _classes(
    self, batch: Batch, places: Sequence[int] | np.ndarray, taken: Sequence[_Wanted]
  ) -> np.ndarray:
    """The outputs to explain for every row: bool (b c)."""
    kind = targets.of(self._fold.dataset.schema.target)
    classes = np.tile(kind.explained(None), (len(batch['row']), 1))
    for place, each in zip(places, taken, strict=True):
      if each.page is not None:
        classes[place] = kind.explained(kind.favourite(each.page.prediction))
    return classes

  def page(self, page: _Page, batch: Batch, found: Doubling) -> ExplainedSample:
    """The content of a sample's page; `batch` has one row."""
    fold, dataset = self._fold, self._fold.dataset
    kind = targets.of(dataset.schema.target)
    row = int(batch['row'][0])
    arrays, attributions = unpacked(batch, found.slopes.gates)
    (member,) = self._members
    weights = jax.tree.map(np.asarray, self._steps.attention(member.variables, batch))
    return ExplainedSample(
      hash=hash_subject(dataset.index['sample_id'][row], dataset.subject_key),
      fold=fold.fold,
      verdict=page.verdict,
      label=dataset.index['label'][row],
      prediction=np.asarray(page.prediction),
      explained=kind.explained_output(kind.favourite(page.prediction)),
      completeness=found.completeness,
      arrays=arrays,
      attributions=attributions,
      items=self.items(batch, found),
      attention=attention_of(
        weights, fold.model_config, member.variables['fitted'], arrays
      ),
      modalities=fold.model_config.modalities,
    )

  def items(self, batch: Batch, found: Doubling) -> list[ItemAttribution]:
    """Attributions of a sample by variable; `batch` has one row."""
    arrays, attributions = unpacked(batch, found.slopes.gates)
    items = items_of(self._fold.model_config.modalities, arrays, attributions)
    said = self._simple.said(batch, [0])
    return together(items, self._simple.items(said, found.slopes, items))


def _warn(found: Explanation) -> None:
  every = [*found.completeness, *(each.completeness for each in found.patients)]
  missed = [abs(each.residual) for each in every if not each.holds]
  if missed:
    _LOGGER.warning(
      'attributions of %d of %d samples do not add up to their outputs: errors up to %.3g',
      len(missed), len(every), max(missed),
    )  # fmt: skip
