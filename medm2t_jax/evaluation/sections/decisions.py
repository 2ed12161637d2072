"""What a threshold would mean in use: operating points and the decision curve.

Net benefit (Vickers and Elkin 2006, doi 10.1177/0272989X06295361) at threshold t is
TP/n - FP/n * t / (1 - t): t is the risk at which a clinician would act. All counts are of
weights: where a stay weighs 1, of a random moment of a random stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES, bootstrap, estimate
from medm2t_jax.evaluation.metrics.metrics import why_undefined
from medm2t_jax.evaluation.metrics.ranking import Curves, Ranking
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.rows import Outcome, Rows
from medm2t_jax.evaluation.sections.judging import too_few_for_average
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import MOST_DRAWN
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Cell, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import in_words, number
from medm2t_jax.runs.run import Run

NAME = 'decisions'

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))

# A point is the lowest (or highest) threshold at which the condition holds.
_Choice = Callable[[Curves], np.ndarray]


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """Operating points and decision curves; no entries of numbers.

  Returns:
    'decisions': {'probabilities': 'predicted' or 'temperature-scaled', 'classes': {name:
    {'operating_points': `operating_points`, 'decision_curve': `decision_curve`}}}.
  """
  if evaluation.test.target.numeric:
    return {}
  scaled, how = evaluation.calibrated, (evaluation.resamples, evaluation.seed)
  used = evaluation.test if scaled is None else scaled
  found = {
    'probabilities': 'predicted' if scaled is None else 'temperature-scaled',
    'classes': {
      outcome.name: {
        'operating_points': operating_points(used, outcome, *how),
        'decision_curve': decision_curve(used, outcome),
      }
      for outcome in used.outcomes
      if len(outcome.row)
    },
  }
  return {'decisions': found}


def verdict(evaluation: Evaluation) -> str | None:
  """What the first operating point finds, and how many of its alerts are right."""
  found = evaluation.metrics.get('decisions')
  if found is None:
    return None
  few = too_few_for_average(evaluation.test)
  first = {name: each['operating_points'][0] for name, each in found['classes'].items()}
  judged = {
    name: point
    for name, point in first.items()
    if point['sensitivity']['value'] is not None and point['ppv']['value'] is not None
  }
  if few or not judged:
    return f'Use at a threshold cannot be judged: {few or "no class has both values"}.'
  what = next(iter(judged.values()))['name'].replace(' at least', ' of at least')
  if len(judged) > 1:
    by = sorted(judged, key=lambda name: judged[name]['sensitivity']['value'])
    ends = [
      f'{100 * judged[name]["sensitivity"]["value"]:.0f} % of "{name}"'
      for name in (by[0], by[-1])
    ]
    return f'With a {what}, the model finds from {ends[0]} to {ends[1]}.'
  ((name, point),) = judged.items()
  sensitivity = point['sensitivity']
  return (
    f'With a {what} (threshold {number(point["threshold"])}), the model finds '
    f'{100 * sensitivity["value"]:.0f} % of "{name}"{_percent_interval(sensitivity)}, and '
    f'{100 * point["ppv"]["value"]:.0f} % of its alerts are '
    f'right{_percent_interval(point["ppv"])}.'
  )


def _percent_interval(share: Mapping[str, Any]) -> str:
  """' (12 to 34 %)', or nothing where there is no interval."""
  if share['low'] is None:
    return ''
  return f' ({100 * share["low"]:.0f} to {100 * share["high"]:.0f} %)'


def render(evaluation: Evaluation) -> Section | None:
  """Operating points and decision curves."""
  metrics = evaluation.metrics.get('decisions')
  if metrics is None:
    return None
  rows: list[Sequence[Cell]] = []
  curves = []
  outcomes = {each.name: each for each in evaluation.test.outcomes}
  for name, each in metrics['classes'].items():
    rows.append((name,))
    for point in each['operating_points']:
      alerts = point['alerts_per_100']
      rows.append(
        (
          point['name'].capitalize(),
          number(point['threshold']),
          in_words(point['sensitivity'], 2),
          in_words(point['specificity'], 2),
          in_words(point['ppv'], 2),
          in_words(alerts, 1),
        )
      )
    if len(curves) < MOST_DRAWN:
      prevalence = evaluation.test.prevalence(outcomes[name])
      curves.append(plots.decision(each['decision_curve'], prevalence, name))
  header = (
    'Operating point',
    'Threshold',
    'Sensitivity',
    'Specificity',
    'PPV',
    'Alerts per 100 samples',
  )
  return Section(
    'decisions',
    'Use at a threshold',
    [
      Paragraph(
        f'Probabilities: {metrics["probabilities"]}. Values with 95 % '
        'intervals; each resample chooses its own threshold.'
      ),
      Table(header, rows, (1,)),
      Gallery(curves),
    ],
  )


def operating_points(
  rows: Rows, outcome: Outcome, resamples: int = RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
  """Operating points of a class against the rest, or of a label.

  Each is {'name', 'threshold', 'sensitivity', 'specificity', 'ppv',
  'alerts_per_100'}: estimates but for `name` and `threshold` (a probability, None where
  undefined). Every resample chooses its own threshold, so the intervals include
  the uncertainty of the choice.
  """
  ranking = Ranking(outcome.probability, outcome.positive, outcome.row)
  counts = rows.of_outcome(outcome)
  reason = why_undefined(rows, outcome)
  points = []
  for name, choose in _POINTS.items():
    draws = bootstrap(
      lambda weights, choose=choose: _at(ranking.curves(weights), choose),
      rows.subject,
      rows.weight,
      resamples,
      seed,
    )
    everything = ranking.curves(rows.weight[np.newaxis])
    position = int(choose(everything)[0])
    threshold = float(ranking.thresholds[position]) if position >= 0 else None
    missing = reason or 'no threshold reaches this: the highest scores are tied'
    points.append(
      {
        'name': name,
        'threshold': threshold if reason is None else None,
        **{key: estimate(each, counts, missing) for key, each in draws.items()},
      }
    )
  return points


def decision_curve(rows: Rows, outcome: Outcome) -> dict[str, list[float]]:
  """Net benefit (per sample) of a class or label: {'threshold', 'model', 'all'}."""
  odds = np.array(THRESHOLDS) / (1 - np.array(THRESHOLDS))
  weight, flagged = rows.weight[outcome.row], {}
  for case in (True, False):
    mine = outcome.positive == case
    order = np.argsort(outcome.probability[mine], kind='stable')
    below = np.searchsorted(outcome.probability[mine][order], THRESHOLDS, side='left')
    cumulative = np.append(0.0, np.cumsum(weight[mine][order]))
    flagged[case] = cumulative[-1] - cumulative[below]
  prevalence = rows.prevalence(outcome)
  return {
    'threshold': list(THRESHOLDS),
    'model': ((flagged[True] - odds * flagged[False]) / weight.sum()).tolist(),
    'all': (prevalence - odds * (1 - prevalence)).tolist(),
  }


def _specific(least: float) -> _Choice:
  """The lowest threshold with a specificity of at least `least`."""
  # The false positive rate rises with the position: count the admissible ones.
  return lambda curves: (
    (curves.false <= (1 - least) * curves.negatives[:, None] + 1e-9).sum(axis=1) - 1
  )


def _sensitive(least: float) -> _Choice:
  """The highest threshold with a sensitivity of at least `least`."""
  return lambda curves: (curves.true < least * curves.positives[:, None] - 1e-9).sum(axis=1)


_POINTS: dict[str, _Choice] = {
  'specificity at least 90 %': _specific(0.9),
  'specificity at least 95 %': _specific(0.95),
  'sensitivity at least 90 %': _sensitive(0.9),
}


def _at(curves: Curves, choose: _Choice) -> dict[str, np.ndarray]:
  position = choose(curves)
  row = np.arange(len(position))
  # Position -1: nothing is flagged.
  pick = lambda values: np.where(position < 0, 0.0, values[row, np.maximum(position, 0)])
  true, false = pick(curves.true), pick(curves.false)
  total = curves.positives + curves.negatives
  defined = (curves.positives > 0) & (curves.negatives > 0)
  positives = np.where(defined, curves.positives, np.nan)
  negatives = np.where(defined, curves.negatives, np.nan)
  flagged = true + false
  return {
    'sensitivity': true / positives,
    'specificity': 1 - false / negatives,
    'ppv': true / np.where(defined & (flagged > 0), flagged, np.nan),
    'alerts_per_100': 100 * flagged / np.where(defined, total, np.nan),
  }
