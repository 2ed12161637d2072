"""The headline metric when only some modalities are given to the same model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import digits_of, headline_metric
from medm2t_jax.evaluation.metrics.paired import Comparison
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.evaluation.sections import robustness
from medm2t_jax.evaluation.sections.judging import in_unit, too_few_for_average, worse
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import INTERVAL, limits_of
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Paragraph, Section, Table
from medm2t_jax.report.text import NONE, in_words, interval, number, times
from medm2t_jax.runs.run import Run

NAME = 'missing_modality'
# Of more modalities there are too many subsets to predict them all.
MOST_IN_SUBSETS = 5


def needs(folds: Sequence[Run]) -> Needs:
  """Subsets of the modalities; every one where the report measures robustness."""
  every = robustness.NAME in folds[0].config.evaluation.sections
  return Needs(without=modality_scenarios(folds[0].dataset.schema.names, every))


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """The headline metric of each subset, and its difference to all modalities.

  Returns:
    'missing_modality': as of `missing_modality`.
  """
  found = missing_modality(
    evaluation.test, evaluation.given[NAME], evaluation.resamples, evaluation.seed
  )
  return {'missing_modality': found}


def verdict(evaluation: Evaluation) -> str | None:
  """In how many cases the headline metric is worse, and in which most."""
  scenarios = evaluation.metrics['missing_modality']
  if not scenarios:
    return None
  rows, name = evaluation.test, evaluation.metrics['headline']['name']
  undefined = all(each['difference']['low'] is None for each in scenarios)
  few = too_few_for_average(rows)
  if few or undefined:
    reason = few or scenarios[0]['difference']['reason']
    return f'What a missing modality does cannot be judged: {reason}.'
  lost = [each for each in scenarios if worse(each['difference'], rows)]
  if not lost:
    of = times(len(scenarios), 'case', 'cases')
    return f'In none of {of} with fewer modalities is {name} shown to be worse.'
  worst = max(lost, key=lambda each: abs(each['difference']['value']))
  return (
    f'{name} is worse in {len(lost)} of {len(scenarios)} cases with fewer modalities, most '
    f'in "{worst["name"]}": difference {in_unit(worst["difference"], rows.target)}.'
  )


def render(evaluation: Evaluation) -> Section | None:
  """The same model given only some modalities."""
  scenarios = evaluation.metrics['missing_modality']
  if not scenarios:
    return None
  headline = evaluation.metrics['headline']
  digits = digits_of(evaluation.test.target)
  metrics = [headline, *(each['metric'] for each in scenarios)]
  limits = limits_of(metrics, None, None)
  row = lambda name, metric, difference: (
    name,
    number(metric['value'], digits),
    plots.interval_bar(
      metric['value'], metric['low'], metric['high'], limits, headline['value']
    ),
    interval(metric, digits),
    in_words(difference, digits) if difference else NONE,
  )
  rows = [row('everything', headline, None)]
  rows += [row(each['name'], each['metric'], each['difference']) for each in scenarios]
  low, high = number(limits[0], 2), number(limits[1], 2)
  header = ('Given', headline['name'], f'{low} … {high}', INTERVAL, 'Difference, paired')
  return Section(
    NAME,
    'With fewer modalities',
    [
      Paragraph(
        'The trained model with modalities masked at test; nothing is '
        'trained again. Differences are to everything, on the same '
        'resamples.'
      ),
      Table(header, rows, (1,)),
    ],
  )


def missing_modality(
  rows: Rows,
  scenarios: Mapping[str, np.ndarray],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """[{'name', 'metric', 'difference'}], one a scenario.

  `difference` is scenario minus all data on the same resamples.

  Args:
    rows: test rows, predicted from all data.
    scenarios: name -> predictions of the same rows from less.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    DataError: a scenario's predictions do not fit the rows.
  """
  headline = headline_metric(rows)
  comparison = Comparison(rows, (headline,), resamples, seed)
  result = []
  for name, prediction in scenarios.items():
    metrics, differences = comparison.other(prediction, f'scenario {name}')
    result.append(
      {'name': name, 'metric': metrics[headline], 'difference': differences[headline]}
    )
  return result


def modality_scenarios(
  modalities: tuple[str, ...], every_subset: bool
) -> dict[str, tuple[str, ...]]:
  """Name -> modalities to drop.

  Args:
    modalities: of the data set.
    every_subset: all subsets but the empty and the whole one, or, of more than
      `MOST_IN_SUBSETS` modalities, each alone, each pair and each left out; if false,
      each alone and each left out.
  """
  count = len(modalities)
  sizes = dict.fromkeys((1, count - 1))
  if every_subset:
    sizes = dict.fromkeys((1, 2, count - 1))
    if count <= MOST_IN_SUBSETS:
      sizes = dict.fromkeys(range(1, count))
  return {
    _scenario_name(given, modalities): tuple(
      name for name in modalities if name not in given
    )
    for size in sizes
    if 0 < size < count
    for given in itertools.combinations(modalities, size)
  }


def _scenario_name(given: tuple[str, ...], modalities: tuple[str, ...]) -> str:
  if len(given) == 1:
    return f'only {given[0]}'
  if len(given) == len(modalities) - 1:
    return f'without {next(name for name in modalities if name not in given)}'
  return ' + '.join(given)
