"""Fits the blend of a fold: our model together with baselines (`config.blend`).

Weights are fitted on validation subjects, with the predictions of the fold's first run and
of the baselines chosen on them. Test subjects and new samples are predicted by the final
run with the baselines' final fit. Everything is kept as plain arrays beside the fold's
checkpoints: nothing is fitted again or unpickled.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline.format.schema import DataError
from medm2t_jax import targets
from medm2t_jax.baselines import (
  boosted_trees,
  cache,
  fitted_arrays,
  logistic_regression,
)
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.inference.blended import (
  AloneAndBlended,
  alone_and_blended,
  blended,
)
from medm2t_jax.models.blend.simple_models import outputs, shifted
from medm2t_jax.models.blend.weighted_sum import OURS, blend
from medm2t_jax.models.medm2t import MULTIMODAL
from medm2t_jax.runs import kept_arrays, workdir
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.run import Run
from medm2t_jax.runs.start import Start
from medm2t_jax.training.blend_weights import fit_weights
from medm2t_jax.training.steps import Predictor

_LOGGER = logging.getLogger(__name__)

STAGE = MULTIMODAL
ALONE = 'model_alone'  # our model without the blend, beside the baselines
BASELINES = {'boosted_trees': boosted_trees, 'logistic_regression': logistic_regression}
_NAME = 'blend'


def fit(fold: Run, inputs: Inputs, ours: np.ndarray) -> np.ndarray:
  """Fits the weights of a fold and saves them with the baselines.

  A run that starts from a bundle uses the baselines and weights of the bundle's blend.

  Args:
    fold: its first run.
    inputs: of its baselines.
    ours: predictions of the first run for the validation samples, in the order of the
      index: probabilities (n, c) or numbers (n,).

  Returns:
    The blend's predictions of the same samples, in the same shape.
  """
  # All processes take part in these.
  made_from, prior = _made_from(fold), fold.statistics['decoder']['offset']
  folder = _folder(fold)

  def make() -> np.ndarray:
    target = inputs.target
    kind = targets.of(target)
    validation = inputs.summaries['validation']
    predictors = {OURS: kind.outputs(ours)}
    chosen: dict[str, dict[str, np.ndarray]] = {}
    final: dict[str, dict[str, np.ndarray]] = {}
    if fold.start:
      chosen = final = _of_start(fold.start, prior)
    else:
      for name in fold.config.blend:
        fitted = BASELINES[name].fitted(inputs)
        chosen[name] = fitted_arrays.as_arrays(fitted.chosen, target)
        final[name] = fitted_arrays.as_arrays(fitted.final, target)
    for name, arrays in chosen.items():
      predictors[name] = np.asarray(jax.jit(outputs)(arrays, validation.value))
    if fold.start:
      assert fold.start.blend is not None  # `adapting.begin` has set config.blend from it
      weights = {name: float(each) for name, each in fold.start.blend['weights'].items()}
    else:
      weights = fit_weights(predictors, validation.label, validation.weight, prior, target)
    content = {'weights': weights, 'prior': prior.tolist()}
    kept_arrays.write(folder, _NAME, made_from, final, **content)
    told = ', '.join(f'{name} {weight:.2f}' for name, weight in weights.items())
    _LOGGER.info('%s: weights of the blend: %s', fold.name, told)
    return kind.predictions(blend(predictors, weights, prior, kind.link))

  return distributed.from_first(make)


def _of_start(start: Start, prior: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
  """The baselines in the bundle's blend, with the prior of the new subjects."""
  assert start.blend is not None
  by = np.asarray(prior, np.float64) - start.blend['prior']
  return {name: shifted(arrays, by) for name, arrays in start.blend['models'].items()}


def restore(fold: Run) -> dict[str, Any] | None:
  """Restores the fitted blend of a fold; None without `config.blend`.

  Returns:
    `weights`: name of a predictor -> float32; `prior`: float32 (c,); `models`: name of a
      baseline -> its arrays (`fitted_arrays`).

  Raises:
    DataError: the blend was not fitted, or was fitted from something else.
  """
  if not fold.config.blend:
    return None
  folder, made_from = _folder(fold), _made_from(fold)

  def read() -> dict[str, Any]:
    kept = kept_arrays.read(folder, _NAME, made_from)
    if kept is None:
      raise DataError(
        f'{folder}: there is no blend of this model. Fit it with --mode=eval, or '
        "evaluate without a blend: --config.blend='()'."
      )
    models, record = kept
    return {**record, 'models': models}

  kept = distributed.from_first(read)
  return {
    'weights': {name: np.float32(weight) for name, weight in kept['weights'].items()},
    'prior': np.asarray(kept['prior'], np.float32),
    'models': kept['models'],
  }


def predictor(fold: Run, ours: Predictor) -> Predictor:
  """The predictor of test subjects and new samples: the final run of a fold in its blend.

  Args:
    fold: its first run.
    ours: the predictor of the final run, returned unchanged without `config.blend`.

  Raises:
    DataError: the blend was not fitted, or was fitted from something else.
  """
  fitted = restore(fold)
  return ours if fitted is None else blended(fold.model_config, fitted, ours)


def with_alone(fold: Run, ours: Predictor) -> AloneAndBlended | None:
  """`predictor` and the network alone, from one forward pass; None without a blend.

  Args:
    fold: its first run.
    ours: the predictor of the final run.

  Raises:
    DataError: the blend was not fitted, or from something else.
  """
  fitted = restore(fold)
  return None if fitted is None else alone_and_blended(fold.model_config, fitted, ours)


def _made_from(fold: Run) -> dict[str, Any]:
  """Everything that a blend depends on, JSON-able."""
  record, final = fold.record(STAGE), fold.final.record(STAGE)
  assert record is not None and final is not None
  settings = {name: BASELINES[name].SETTINGS for name in fold.config.blend}
  made = {
    'baselines': cache.identity(fold, 'blend', settings),
    'model': [[each.best_step, each.seconds] for each in (record, final)],
    'start_from': fold.config.start_from_version,
    'arrays': fitted_arrays.FORMAT,
  }
  return json.loads(json.dumps(made))


def _folder(fold: Run) -> Path:
  return workdir.stage_directory(fold.workdir, fold.fold, 'blend')
