"""Renders pages that begin with a headline metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from data_pipeline.format.schema import Target
from medm2t_jax.evaluation import sections
from medm2t_jax.evaluation.metrics.metrics import digits_of
from medm2t_jax.evaluation.model_card import predicts
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.baselines import ALONE, title
from medm2t_jax.report.blocks import Section
from medm2t_jax.report.document import document
from medm2t_jax.report.template import render as from_template
from medm2t_jax.report.text import (
  capitalized,
  count,
  in_words,
  interval,
  listed,
  number,
  source_name,
  task_name,
)


def render(evaluation: Evaluation) -> tuple[str, dict[str, str]]:
  """The whole page as HTML, and further pages: path -> HTML."""
  metrics = evaluation.metrics
  shown = [
    dataclasses.replace(section, verdict=metrics['verdicts'][each.NAME])
    for each in sections.chosen(evaluation.context.sections)
    if (section := each.render(evaluation)) is not None
  ]
  headline = metrics['headline']
  bootstrap = metrics['bootstrap']
  footer = (
    f'Intervals: central 95 % of {bootstrap["resamples"]:,} bootstrap resamples of '
    'subjects (calibration slope and intercept: Wald, robust to several samples per '
    'subject). Discrimination uses the uncalibrated probabilities. All metrics are in '
    'metrics.json, all predictions in predictions.parquet.'
  )
  text = page(
    kicker='MedM2T evaluation',
    title=task_name(metrics['task'], evaluation.test.target.description),
    source=metrics['source'],
    notes=metrics['notes'],
    headline=_headline(headline),
    estimate=headline,
    target=evaluation.test.target,
    facts=_facts(evaluation),
    made_of=_made_of(evaluation),
    sections=shown,
    footer=footer,
  )
  return text, {path: file for each in shown for path, file in each.files.items()}


def page(
  *,
  kicker: str,
  title: str,
  source: str,
  notes: Sequence[str],
  headline: str,
  estimate: Mapping[str, Any],
  target: Target,
  facts: Sequence[tuple[str, str]],
  sections: Sequence[Section],
  footer: str,
  made_of: Sequence[tuple[str, str]] = (),
) -> str:
  """A whole page as HTML.

  Args:
    kicker: kind of page.
    title: of the task.
    source: key of the source.
    notes: warnings at the top.
    headline: name of the headline metric.
    estimate: its 'value', 'low', 'high' and 'reason', in the unit of the target.
    target: what is predicted.
    facts: terms and texts beside the headline, for a reader who knows the patients but not
      the model.
    sections: of the page.
    footer: below the sections.
    made_of: terms and texts below the facts: of the model and the data.
  """
  value, spread = _value_and_spread(estimate, target)
  summary = from_template(
    'headline.html',
    notes=notes,
    name=headline,
    value=value,
    interval=spread,
    facts=facts,
    made_of=made_of,
  )
  return document(
    kicker=kicker,
    title=title,
    subtitle=source_name(source),
    sections=sections,
    summary=Markup(summary),
    footer=footer,
  )


def _headline(headline: Mapping[str, Any]) -> str:
  """Name of the headline metric of a report."""
  name, average = headline['name'], headline['average']
  if average:
    name = f'{name}, macro average' if average == 'macro' else f'{name}, {average}'
  return f'Test {name}'


def _value_and_spread(estimate: Mapping[str, Any], target: Target) -> tuple[str, str]:
  """An estimate in the unit of the target, and its interval, in words."""
  if estimate['value'] is None:
    return 'undefined', estimate['reason']
  digits = digits_of(target)
  value = f'{number(estimate["value"], digits)} {target.unit}'.rstrip()
  spread = interval(estimate, digits)
  return value, spread if estimate['low'] is None else f'95 % interval {spread}'


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
  """What is predicted, for whom, how well, how sure, and against what."""
  metrics = evaluation.metrics
  test, verdicts = metrics['test'], metrics['verdicts']
  whom = f'{count(test["n"])} of {count(test["subjects"])} subjects'
  if 'classes' in test:
    whom += f': {", ".join(f"{name} {count(n)}" for name, n in test["classes"].items())}'
  facts = [
    ('Predicts', predicts(evaluation.context.schema)),
    ('Test samples', whom),
    ('How good', verdicts['discrimination']),
    ('How sure', verdicts['calibration']),
  ]
  if 'baselines' in verdicts:
    facts.append(('Against', verdicts['baselines']))
  return facts


def _made_of(evaluation: Evaluation) -> list[tuple[str, str]]:
  metrics = evaluation.metrics
  if metrics['target']['kind'] != 'regression':
    calibrated = _calibrated(metrics)
  else:
    slope = metrics['calibration']['slope']['value']
    calibrated = f'slope {number(slope, 2)} (ideal 1)'
  return [
    *_predictors(evaluation),
    ('Calibration', calibrated),
    ('Modalities', ', '.join(metrics['modalities'])),
    ('Folds tested', ', '.join(metrics['folds'])),
    ('Data version', metrics['dataset_version'] or 'not recorded'),
  ]


def _predictors(evaluation: Evaluation) -> list[tuple[str, str]]:
  """The parts of the model, and the metrics of the network and simple models alone."""
  target = evaluation.test.target
  digits = digits_of(target)
  blend = evaluation.context.config.get('blend', ())
  parts = ['the network', *(title(name, target) for name in blend)]
  what = f'a blend of {listed(parts)}' if blend else listed(parts)
  facts = [('Predictor', what)]
  for each in evaluation.metrics.get('baselines', ()):
    if each['name'] not in ALONE:
      continue
    metric, found = next(iter(each['metrics'].items()))
    difference = in_words(each['differences'][metric], digits)
    term = title(each['name'], target)
    facts.append(
      (
        capitalized(term),
        f'{number(found["value"], digits)}, difference {difference}',
      )
    )
  return facts


def _calibrated(metrics: Mapping[str, Any]) -> str:
  calibration = metrics['calibration']
  before = _worst_error(calibration['before'])
  if calibration['after'] is None:
    return f'not calibrated, ECE {before}'
  after = _worst_error(calibration['after'])
  return f'temperature-scaled, ECE {before} before, {after} after'


def _worst_error(calibration: Mapping[str, Any]) -> str:
  return number(max(each['ece']['value'] for each in calibration['classes'].values()))
