"""Our model against baselines, paired: who is better is said in words, first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import Target
from medm2t_jax import baselines
from medm2t_jax.evaluation.metrics.metrics import NAMES, compared_metrics, digits_of
from medm2t_jax.evaluation.metrics.paired import Comparison
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.judging import excludes, too_few_for_average, worse
from medm2t_jax.evaluation.sections.section import Needs, Tested
from medm2t_jax.inference import blend
from medm2t_jax.report.blocks import (
  Block,
  Bullets,
  Callout,
  Cell,
  Paragraph,
  Section,
  Table,
)
from medm2t_jax.report.text import (
  NONE,
  capitalized,
  in_brackets,
  in_words,
  interval,
  listed,
  number,
)
from medm2t_jax.runs.run import Run

NAME = 'baselines'
_PLURAL = ('boosted_trees',)
_TITLES = {
  'logistic_regression': 'logistic regression',
  'boosted_trees': 'boosted trees',
  'gru': 'the GRU',
  'model_alone': 'the network alone',
}
_SINGLE = 'single_'
# Shown on the first screen, beside what predicts.
ALONE = ('model_alone', 'boosted_trees', 'logistic_regression')


def needs(_: Sequence[Run]) -> Needs:
  """Predictions of the baselines, and of the network alone."""
  return Needs(of_all=_predicted, alone=True)


def _predicted(tested: Tested) -> tuple[dict[str, np.ndarray], list[str]]:
  """Name -> predictions of all folds, and sentences on what is not compared, and why."""
  found, left_out = baselines.predict(tested.folds, tested.inputs)
  if tested.alone:
    found = {blend.ALONE: np.concatenate(tested.alone), **found}
  return found, left_out


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """The metrics of every baseline, and their differences to our model.

  Returns:
    'baselines': [{'name', 'metrics': {metric: estimate}, 'differences': {metric:
    estimate}}], one a baseline, with AUROC and AUPRC, or MAE and RMSE in the target's
    unit; a difference is baseline minus our model on the same resamples.
    'baselines_left_out': sentences on what is not compared, and why.
  """
  predictions, left_out = evaluation.given[NAME]
  result = []
  if predictions:
    test = evaluation.test
    how = evaluation.resamples, evaluation.seed
    comparison = Comparison(test, compared_metrics(test), *how)
    for name, prediction in predictions.items():
      metrics, differences = comparison.other(prediction, f'baseline {name}')
      result.append({'name': name, 'metrics': metrics, 'differences': differences})
  return {'baselines': result, 'baselines_left_out': list(left_out)}


def verdict(evaluation: Evaluation) -> str | None:
  """Which baselines are worse than this model, which are better."""
  entries = evaluation.metrics['baselines']
  if not entries:
    left_out = evaluation.metrics['baselines_left_out']
    return 'Nothing is compared: no baseline could be predicted.' if left_out else None
  rows = evaluation.test
  headline, target = compared_metrics(rows)[0], rows.target
  few = too_few_for_average(rows)
  undefined = [each['differences'][headline]['low'] is None for each in entries]
  if few or all(undefined):
    reason = few or entries[0]['differences'][headline]['reason']
    return f'Whether this model or its baselines are better cannot be judged: {reason}.'
  worse_than: list[str] = []
  better_than: list[str] = []
  no_difference: list[str] = []
  for each in entries:
    difference, name = each['differences'][headline], title(each['name'], target)
    if not excludes(difference, 0.0):
      no_difference.append(name)
    else:
      (better_than if worse(difference, rows) else worse_than).append(name)
  if len(no_difference) == len(entries):
    return f'No difference is shown between this model and {listed(no_difference)}.'
  parts = [f'better than {listed(better_than)}'] if better_than else []
  parts += [f'worse than {listed(worse_than)}'] if worse_than else []
  rest = ''
  if no_difference:
    rest = f'; no difference to {listed(no_difference)} is shown'
  return f'By {NAMES[headline]}, this model is {" and ".join(parts)}{rest}.'


def render(evaluation: Evaluation) -> Section | None:
  """Headline metrics of every baseline, and their paired differences to our model."""
  entries = evaluation.metrics['baselines']
  left_out = evaluation.metrics['baselines_left_out']
  if not entries and not left_out:
    return None
  names = compared_metrics(evaluation.test)
  target = evaluation.test.target
  digits = digits_of(target)
  linear = 'Ridge regression' if target.numeric else 'Logistic regression'
  sentences = [
    who_is_better(each['name'], each['differences'][names[0]], NAMES[names[0]], target)
    for each in entries
  ]
  blocks: list[Block] = [Callout(text) for wins, text in sentences if wins]
  others = [text for wins, text in sentences if not wins]
  blocks.append(Bullets([*others, *(f'Not compared: {text}' for text in left_out)]))
  ours = evaluation.metrics['pooled']['overall']
  rows = [_row('this model', ours, None, names, digits)]
  rows += [
    _row(title(each['name'], target), each['metrics'], each['differences'], names, digits)
    for each in entries
  ]
  again = ', fitted again on both with what was chosen' if evaluation.context.refit else ''
  header = ['']
  for name in names:
    unit = in_brackets(target.unit)
    header += [NAMES[name] + unit, '95 % interval', 'Difference, paired']
  blocks += [
    Table(header, rows, (1, 4)),
    Paragraph(
      f'{linear} and boosted trees read summary statistics of every variable, the GRU '
      'reads windows of time; all are fitted on the training subjects of each fold, '
      f'chosen on its validation subjects{again}, and predict the same test samples. A '
      'single stage is this model trained on one modality; where a sample lacks that, the '
      f'training average stands.{_of_blend(evaluation)} Differences are baseline minus '
      'this model, on the same resamples of the subjects.'
    ),
  ]
  return Section('baselines', 'Against baselines', blocks)


def _of_blend(evaluation: Evaluation) -> str:
  config = evaluation.context.config
  if not config.get('blend'):
    return ''
  if config.get('start_from'):
    return (
      ' This model is a blend of the adapted network with the simple models of the model '
      'that it was adapted from; those above were fitted here.'
    )
  return (
    ' This model is a blend: weights of the network and of these simple models were fitted '
    'on validation subjects.'
  )


def title(name: str, target: Target) -> str:
  """What a baseline is called inside a sentence."""
  if name.startswith(_SINGLE):
    return f'the stage {name.removeprefix(_SINGLE)} alone'
  if name == 'logistic_regression' and target.numeric:
    return 'ridge regression'
  return _TITLES.get(name, name)


def who_is_better(
  name: str, difference: Mapping[str, Any], metric: str, target: Target
) -> tuple[bool, str]:
  """Whether the baseline is better, and a sentence that says who is.

  Args:
    name: of the baseline.
    difference: estimate of baseline minus our model.
    metric: name of the metric; of numbers less is better, of classes more.
    target: what is predicted.
  """
  other, verb = title(name, target), 'are' if name in _PLURAL else 'is'
  subject = capitalized(other)
  digits = digits_of(target)
  unit = f'{target.unit} of {metric}'.strip() if target.numeric else metric
  low, high = difference['low'], difference['high']
  if difference['value'] is None or low is None:
    return False, f'{subject}: no comparison possible ({difference["reason"]}).'
  if low <= 0 <= high:
    return False, f'{subject}: no difference shown, {in_words(difference, digits)} {unit}.'
  wins = (high < 0) if target.numeric else (low > 0)
  size = difference if low > 0 else _negated(difference)
  amount = f'by {in_words(size, digits)} {unit}.'
  if wins:
    return True, f'{subject} {verb} better than this model {amount}'
  return False, f'This model is better than {other} {amount}'


def _negated(difference: Mapping[str, Any]) -> dict[str, Any]:
  low, high = -difference['high'], -difference['low']
  return {**difference, 'value': -difference['value'], 'low': low, 'high': high}


def _row(
  name: str,
  metrics: Mapping[str, Any],
  differences: Mapping[str, Any] | None,
  names: Sequence[str],
  digits: int,
) -> Sequence[Cell]:
  cells: list[Cell] = [capitalized(name)]
  for key in names:
    metric = metrics[key]
    difference = in_words(differences[key], digits) if differences else NONE
    cells += [number(metric['value'], digits), interval(metric, digits), difference]
  return cells
