"""Baselines: other predictors of the same test samples, in the same folds.

`predict` is the only entry point. Each baseline is fitted on the training subjects of a
fold and chosen on its validation subjects; with `config.refit` the choice is fitted again
on both. Test predictions are kept in the workdir and recomputed when anything that they
depend on has changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medm2t_jax.baselines import (
  boosted_trees,
  cache,
  gru,
  logistic_regression,
  single_modalities,
)
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.run import Run, is_complete

_LOGGER = logging.getLogger(__name__)

_FITTED = {
  'logistic_regression': logistic_regression,
  'boosted_trees': boosted_trees,
  'gru': gru,
}
_STAGES = 'single_modalities'
KNOWN = (*_FITTED, _STAGES)


def predict(
  folds: Sequence[Run], inputs: Sequence[Inputs]
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Test predictions of every baseline of `config.evaluation.baselines`.

  Args:
    folds: of one experiment, pooled.
    inputs: of the baselines, one per fold.

  Returns:
    Name -> class probabilities (n c) or numbers (n), rows in the order of the folds and
    within a fold of the index. A baseline of one modality is called `single_` and the
    modality. And one sentence per modality that is left out because its stage was not
    trained in every fold.

  Raises:
    DataError: an unknown baseline; damaged data, checkpoints or kept predictions.
  """
  chosen = [name for name in KNOWN if name in folds[0].config.evaluation.baselines]
  names = [name for name in chosen if name in _FITTED]
  modalities, left_out = [], []
  for modality in folds[0].dataset.schema.modalities if _STAGES in chosen else ():
    without = [fold.fold for fold in folds if not is_complete(fold, modality)]
    if without:
      listed = ', '.join(map(str, without))
      left_out.append(f'{modality} alone: its stage was not trained in fold {listed}.')
    else:
      modalities.append(modality)
  if chosen:
    _LOGGER.info('fitting and predicting with baselines: %s', ', '.join(chosen))
  parts: dict[str, list[np.ndarray]] = {}
  for fold, given in zip(folds, inputs, strict=True):
    for name, prediction in _of_fold(fold, given, names, modalities).items():
      parts.setdefault(name, []).append(prediction)
  return {name: np.concatenate(each) for name, each in parts.items()}, left_out


def _of_fold(
  fold: Run, inputs: Inputs, names: Sequence[str], modalities: Sequence[str]
) -> dict[str, np.ndarray]:
  result = {}
  for name in names:
    fit_predict = _FITTED[name].fit_predict
    made = lambda fit_predict=fit_predict: distributed.from_first(
      lambda: fit_predict(inputs)
    )
    result[name] = _kept_or_made(fold, name, _FITTED[name].SETTINGS, made)
  for modality in modalities:
    name = f'single_{modality}'
    settings = single_modalities.settings(fold, modality)
    made = lambda modality=modality: single_modalities.predict(fold, modality)
    result[name] = _kept_or_made(fold, name, settings, made)
  return result


def _kept_or_made(
  fold: Run, name: str, settings: Any, make: Callable[[], np.ndarray]
) -> np.ndarray:
  """The predictions in the workdir if they are up to date, else new ones."""
  made_from = cache.identity(fold, name, settings)
  kept = distributed.from_first(lambda: cache.read(fold, name, made_from))
  if kept is not None:
    _LOGGER.info('fold %d: baseline %s is complete', fold.fold, name)
    return kept
  start = time.monotonic()
  prediction = make()
  distributed.from_first(lambda: cache.write(fold, name, made_from, prediction))
  seconds = time.monotonic() - start
  _LOGGER.info('fold %d: baseline %s, %.1f s', fold.fold, name, seconds)
  return prediction
