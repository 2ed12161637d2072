"""Compares a prediction with those of the model's own test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import Target
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.serving.explorer import words


def among_tests(model: TrainedModel, output: int, prediction: float) -> dict[str, Any]:
  """The page's comparison for one output, JSON-able.

  Args:
    model: whose bundle holds percentiles and calibration of its test samples.
    output: class or label; 0 for a number.
    prediction: of the patient.

  Returns:
    'sentences'; 'percentiles', 1 to 99, and 'curve', bins of calibration, to draw. The last
    two are empty if the bundle does not hold them, which a sentence then says.
  """
  target = model.schema.target
  name = '' if target.numeric else target.classes[output]
  percentiles = model.tests.get('predicted', {}).get(name, [])
  curve = _curve(model.tests.get('calibration', {}), name, target)
  sentences = []
  if percentiles:
    sentences.append(_place(percentiles, prediction))
  else:
    sentences.append(
      'This bundle has no distribution of the predictions of its test samples.'
    )
  if curve:
    sentences.append(_calibration(curve, prediction, target, name))
  return {'sentences': sentences, 'percentiles': percentiles, 'curve': curve}


def _place(percentiles: Sequence[float], prediction: float) -> str:
  below = int(np.searchsorted(percentiles, prediction, side='left'))
  of = "of the predictions of the model's own test samples."
  if below == 0:
    return f'Among the lowest 1{words.NARROW}% {of}'
  return f'Higher than {below}{words.NARROW}% {of}'


def _calibration(
  curve: Sequence[Mapping[str, Any]], prediction: float, target: Target, name: str
) -> str:
  nearest = min(curve, key=lambda each: abs(each['predicted'] - prediction))
  count = f'{nearest["n"]} test samples with the nearest predictions'
  mean = words.value(nearest['predicted'], target)
  observed = words.value(nearest['observed'], target)
  if target.numeric:
    return f'Of the {count} (on average {mean}) the true mean was {observed}.'
  return f'Of the {count} (on average {mean}), "{name}" was true of {observed}.'


def _curve(
  calibration: Mapping[str, Any], name: str, target: Target
) -> list[dict[str, Any]]:
  if target.numeric:
    return list(calibration.get('curve', []))
  classes = calibration.get('before', {}).get('classes', {})
  return list(classes.get(name, {}).get('curve', []))
