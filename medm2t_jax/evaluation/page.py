"""Renders pages that begin with a headline metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from data_pipeline.format.schema import Target
from medm2t_jax.evaluation import sections
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.baselines import ALONE, title
from medm2t_jax.report.blocks import Section
from medm2t_jax.report.document import document
from medm2t_jax.report.template import render as from_template
from medm2t_jax.report.text import count, in_words, interval, number, source_name, task_name


def render(evaluation: Evaluation) -> tuple[str, dict[str, str]]:
  """The whole page as HTML, and further pages: path -> HTML."""
  metrics = evaluation.metrics
  made = [each.render(evaluation) for each in sections.chosen(evaluation.context.sections)]
  shown = [section for section in made if section is not None]
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
    headline=_headline(headline, evaluation.test.target),
    facts=_facts(evaluation),
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
  headline: tuple[str, str, str],
  facts: Sequence[tuple[str, str]],
  sections: Sequence[Section],
  footer: str,
) -> str:
  """A whole page as HTML.

  Args:
    kicker: kind of page.
    title: of the task.
    source: key of the source.
    notes: warnings at the top.
    headline: name, value and interval of the headline metric.
    facts: terms and texts beside the headline.
    sections: of the page.
    footer: below the sections.
  """
  name, value, spread = headline
  summary = from_template(
    'headline.html', notes=notes, name=name, value=value, interval=spread, facts=facts
  )
  return document(
    kicker=kicker,
    title=title,
    subtitle=source_name(source),
    sections=sections,
    summary=Markup(summary),
    footer=footer,
  )


def _headline(headline: Mapping[str, Any], target: Target) -> tuple[str, str, str]:
  """Name, value and interval of the headline metric in words."""
  name, average = headline['name'], headline['average']
  if average:
    name = f'{name}, macro average' if average == 'macro' else f'{name}, {average}'
  if headline['value'] is None:
    return f'Test {name}', 'undefined', headline['reason']
  unit = f' {target.unit}' if target.unit else ''
  digits = 2 if target.numeric else 3
  spread = interval(headline, digits)
  if headline['low'] is not None:
    spread = f'95 % interval {spread}'
  return f'Test {name}', number(headline['value'], digits) + unit, spread


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
  metrics = evaluation.metrics
  test = metrics['test']
  facts = [
    *_predictors(evaluation),
    ('Test samples', f'{count(test["n"])} of {count(test["subjects"])} subjects'),
  ]
  if metrics['target']['kind'] != 'regression':
    listed = [f'{name} {count(n)}' for name, n in test['classes'].items()]
    facts += [('Classes', ', '.join(listed)), ('Calibration', _calibrated(metrics))]
  else:
    slope = metrics['calibration']['slope']['value']
    facts.append(('Calibration', f'slope {number(slope, 2)} (ideal 1)'))
  return [
    *facts,
    ('Modalities', ', '.join(metrics['modalities'])),
    ('Folds tested', ', '.join(metrics['folds'])),
    ('Data version', metrics['dataset_version'] or 'not recorded'),
  ]


def _predictors(evaluation: Evaluation) -> list[tuple[str, str]]:
  """The parts of the model, and the metrics of the network and simple models alone."""
  target = evaluation.test.target
  digits = 2 if target.numeric else 3
  blend = evaluation.context.config.get('blend', ())
  *most, last = ['the network', *(title(name, target) for name in blend)]
  what = f'a blend of {", ".join(most)} and {last}' if most else last
  facts = [('Predicts', what)]
  for each in evaluation.metrics.get('baselines', ()):
    if each['name'] not in ALONE:
      continue
    metric, found = next(iter(each['metrics'].items()))
    difference = in_words(each['differences'][metric], digits)
    term = title(each['name'], target)
    facts.append(
      (
        f'{term[0].upper()}{term[1:]}',
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
