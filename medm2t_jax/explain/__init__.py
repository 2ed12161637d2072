"""What the model looked at: pages of single test samples, and importance over many.

`config.evaluation.explained` test samples get a page each, `explained_globally` random ones
go into the importance of every variable. Both are explained one sample at a time by one
compiled function (a bucket); `reporting/explanation.py` makes figures of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipeline.folds import hash_subject
from data_pipeline.schema import Target
from medm2t_jax import distributed
from medm2t_jax.explain.attention import attention_of
from medm2t_jax.explain.choose import Verdict, choose_samples
from medm2t_jax.explain.integrated_gradients import STAGE, Integrated, explain_step
from medm2t_jax.fold import Batch, Fold
from medm2t_jax.reporting.explanation import (
  Completeness,
  ExplainedSample,
  Explanation,
  ItemAttribution,
  items_of,
)

_LOGGER = logging.getLogger(__name__)


def explain(
  folds: Sequence[Fold], rows: Sequence[np.ndarray], predictions: Sequence[np.ndarray]
) -> Explanation | None:
  """Explains test samples; None where the configuration wants none.

  The first process works, the others wait and have nothing to show.

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
  dataset = folds[0].dataset
  row, prediction = np.concatenate(rows), np.concatenate(predictions)
  fold_of = np.repeat(np.arange(len(folds)), [len(each) for each in rows])
  chosen = choose_samples(prediction, dataset.index['label'][row], asked.explained)
  step = explain_step(folds[0].model, dataset.schema.target.kind)
  share = -(-asked.explained_globally // len(folds))
  patients: dict[int, ExplainedSample] = {}
  samples: list[list[ItemAttribution]] = []
  completeness: list[Completeness] = []
  for place, fold in enumerate(folds):
    # All processes restore together.
    variables, _ = fold.restore_best(STAGE)
    explainer = _Explainer(fold, step, variables)
    pages: dict[int, tuple[int, Verdict]] = {
      int(row[i]): (i, verdict) for i, verdict in chosen if fold_of[i] == place
    }
    sampled = _random_rows(fold, rows[place], share)

    def work(
      explainer: _Explainer = explainer,
      pages: dict[int, tuple[int, Verdict]] = pages,
      sampled: np.ndarray = sampled,
    ) -> None:
      for found, batch in explainer.samples(list(pages), 'explained pages'):
        i, verdict = pages[found]
        patients[i] = explainer.page(batch, verdict, prediction[i])
      for _, batch in explainer.samples(sampled, 'explained'):
        items, complete = explainer.items(batch)
        samples.append(items)
        completeness.append(complete)

    distributed.from_first(work)
  found = Explanation(
    patients=[patients[i] for i, _ in chosen if i in patients],
    explained=_explained_output(dataset.schema.target, None),
    samples=samples,
    completeness=completeness,
  )
  _warn(found)
  return found


class _Explainer:
  """Explains samples of one fold on one device."""

  def __init__(self, fold: Fold, step: Callable[..., Any], variables: Mapping[str, Any]):
    self._fold = fold
    self._step = step
    device = jax.local_devices()[0]
    self._variables = jax.device_put(jax.tree.map(np.asarray, dict(variables)), device)

  def samples(
    self, rows: Sequence[int] | np.ndarray, description: str
  ) -> Iterator[tuple[int, Batch]]:
    """Index row and batch of one row, without the device axis, of each sample."""
    fold = self._fold
    if not len(rows):
      return
    modalities = fold.modalities_of(STAGE)
    plan = fold.plan_rows(np.sort(np.array(rows)), modalities, jax.device_count())
    progress = tqdm(
      desc=f'fold {fold.index} {description}', total=len(rows), unit='sample', leave=False
    )
    with progress:
      for batch in fold.read_here(plan, modalities):
        for device in np.flatnonzero(batch['row'][:, 0] >= 0):
          yield int(batch['row'][device, 0]), jax.tree.map(lambda x, d=device: x[d], batch)
          progress.update()

  def page(self, batch: Batch, verdict: Verdict, prediction: np.ndarray) -> ExplainedSample:
    """Everything that a sample's page shows."""
    fold, target = self._fold, self._fold.dataset.schema.target
    index, row = fold.dataset.index, int(batch['row'][0])
    classes = np.zeros(target.outputs, bool)
    favourite = None
    if target.kind == 'classes':
      favourite = 1 + int(np.argmax(prediction[1:]))
      classes[favourite] = True
    integrated, sown = self._step(self._variables, batch, classes)
    arrays, attributions = self._unpacked(batch, integrated)
    return ExplainedSample(
      hash=hash_subject(index['sample_id'][row], fold.dataset.fold_key),
      fold=fold.index,
      verdict=verdict,
      label=float(index['label'][row]),
      prediction=np.asarray(prediction),
      explained=_explained_output(target, favourite),
      completeness=_completeness(integrated),
      arrays=arrays,
      attributions=attributions,
      attention=attention_of(
        sown, fold.model_config, fold.dataset.schema, self._variables['fitted'], arrays
      ),
    )

  def items(self, batch: Batch) -> tuple[list[ItemAttribution], Completeness]:
    """Attributions of a sample by variable, of all classes but the first."""
    target = self._fold.dataset.schema.target
    classes = np.arange(target.outputs) > 0
    integrated, _ = self._step(self._variables, batch, classes)
    arrays, attributions = self._unpacked(batch, integrated)
    found = items_of(self._fold.dataset.schema, arrays, attributions)
    return found, _completeness(integrated)

  def _unpacked(
    self, batch: Batch, integrated: Integrated
  ) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """The sample's arrays and attributions, without the axis of batch rows."""
    arrays, attributions = {}, {}
    for name in self._fold.modalities_of(STAGE):
      first = (lambda x: np.asarray(x)) if name == 'ecg' else (lambda x: np.asarray(x)[0])
      arrays[name] = {key: first(array) for key, array in batch[name].items()}
      attributions[name] = {
        key.removesuffix('_gate'): first(array)
        for key, array in integrated.attributions[name].items()
      }
    return arrays, attributions


def _random_rows(fold: Fold, rows: np.ndarray, count: int) -> np.ndarray:
  if len(rows) <= count:
    return rows
  generator = np.random.default_rng((fold.config.seed, fold.index))
  return np.sort(generator.choice(rows, count, replace=False))


def _completeness(integrated: Integrated) -> Completeness:
  attributed = sum(
    np.asarray(leaf).sum(dtype=np.float64)
    for leaf in jax.tree.leaves(integrated.attributions)
  )
  return Completeness(
    float(integrated.output), float(integrated.baseline), float(attributed)
  )


def _explained_output(target: Target, against_first: int | None) -> str:
  """The output in words; `against_first` None stands for all classes but the first."""
  if target.kind == 'days':
    return 'predicted days'
  if against_first is None and target.outputs > 2:
    return f'log odds of any class but "{target.classes[0]}"'
  other = target.classes[against_first or 1]
  return f'log odds of "{other}" against "{target.classes[0]}"'


def _warn(found: Explanation) -> None:
  every = [*found.completeness, *(each.completeness for each in found.patients)]
  missed = [abs(each.residual) for each in every if not each.holds]
  if missed:
    _LOGGER.warning(
      'attributions of %d of %d samples do not add up to their outputs: off by up to %.3g',
      len(missed), len(every), max(missed),
    )  # fmt: skip
