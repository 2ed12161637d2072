"""What the model looked at: variables over many samples, pages of a few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from medm2t_jax import targets
from medm2t_jax.evaluation import explain
from medm2t_jax.evaluation.explain import explanation_plots
from medm2t_jax.evaluation.explain.timeline import patient_page
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.section import Needs, Tested
from medm2t_jax.modalities.shown import ItemAttribution
from medm2t_jax.report.blocks import (
  Block,
  Callout,
  Cell,
  Heading,
  Paragraph,
  Section,
  Table,
  link,
)
from medm2t_jax.report.text import NONE, count, listed, number, times
from medm2t_jax.runs.run import Run

NAME = 'explanation'
MOST_ITEMS = 20
_NAMED = 3  # variables in the verdict
_LEAST_SAMPLES = 5  # for a correlation


def needs(_: Sequence[Run]) -> Needs:
  """Attributions of some test samples."""
  return Needs(of_all=_explained)


def _explained(tested: Tested) -> explain.Explanation | None:
  return explain.explain(tested.folds, tested.rows, tested.predictions)


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """Importance of every variable, pages, residuals.

  Returns:
    'explanation': None where nothing is explained, else {'explained': the output in words,
    'samples': how many go into the importance, 'incomplete': how many of them have
    attributions that do not add up, 'largest_residual': on the scale of the output or None,
    'items': [{'modality', 'name', 'unit', 'samples', 'mean_absolute', 'mean',
    'correlation'}], the most important first, 'patients': [{'page', 'sample', 'fold',
    'verdict', 'label', 'prediction', 'explained', 'output', 'baseline', 'residual',
    'complete'}]}. Attributions are on the scale of the output (log odds, or a number).
  """
  return {'explanation': _as_json(evaluation.given[NAME])}


def verdict(evaluation: Evaluation) -> str | None:
  """The variables with the largest attributions, and whether attributions add up."""
  found = evaluation.metrics['explanation']
  if found is None:
    return None
  if not found['items']:
    pages = times(len(found['patients']), 'sample has a page', 'samples have pages')
    return f'{pages}; which variables matter over many samples was not measured.'
  largest = [each['mean_absolute'] for each in found['items']]
  share = sum(largest[:_NAMED]) / sum(largest) if sum(largest) else 0.0
  names = listed([f'"{each["name"]}"' for each in found['items'][:_NAMED]])
  text = (
    f'Over {times(found["samples"], "test sample", "test samples")}, {names} have the '
    f'largest attributions: {100 * share:.0f} % of all that is attributed'
  )
  if found['incomplete']:
    text += (
      f'; those of {found["incomplete"]} samples do not add up to their outputs, so read '
      'them with care'
    )
  return f'{text}.'


def render(evaluation: Evaluation) -> Section | None:
  """Importance of the variables, and links to the pages of single samples."""
  found = evaluation.metrics['explanation']
  if found is None:
    return None
  blocks: list[Block] = [
    Paragraph(
      'Integrated gradients: the change of an output from a baseline to the sample, '
      'shared out among everything that was observed. The baseline was observed just as '
      'often and at the same times, but every number is a median, every event unknown, '
      'every ECG flat. So what a value says is attributed, and not that somebody measured '
      'it. Attributions describe the model; they are no causes of disease.'
    )
  ]
  if evaluation.context.config.get('blend'):
    blocks.append(
      Paragraph(
        'What predicts is a blend, and so is what is explained: what the columns of the '
        'simple models add (of trees by TreeSHAP, against what they expect of the training '
        'samples) is in the attributions of the variables. It says also what it means that '
        'a variable was not recorded. Courses and signals on the pages are of the network.'
      )
    )
  if found['items']:
    blocks += _globally(found)
  if found['patients']:
    blocks += [
      Heading('Single samples'),
      Paragraph(
        'The most confident predictions that were right and wrong (of numbers '
        'and labels: the closest and the farthest). The pages hold values of single '
        'patients: handle them like the data.'
      ),
      _pages(evaluation, found),
    ]
  schema = evaluation.context.schema
  pages = {
    f'patients/{number}.html': patient_page(schema, sample, number)
    for number, sample in enumerate(evaluation.given[NAME].patients, start=1)
  }
  return Section('explanation', 'What the model looked at', blocks, pages)


def _globally(found: Mapping[str, Any]) -> list[Block]:
  samples = count(found['samples'])
  blocks: list[Block] = [Heading(f'Most important variables, {samples} test samples')]
  if found['incomplete']:
    blocks.append(
      Callout(
        f'Attributions of {count(found["incomplete"])} of {samples} samples do not add up '
        f'to their outputs: off by up to {number(found["largest_residual"])}.'
      )
    )
  top = found['items'][:MOST_ITEMS]
  rows: list[tuple[Cell, ...]] = [
    (
      _name(each),
      each['modality'],
      number(each['mean_absolute'], 4),
      number(each['mean'], 4),
      NONE if each['correlation'] is None else number(each['correlation'], 2),
      count(each['samples']),
    )
    for each in top
  ]
  header = (
    'Variable',
    'Modality',
    'Mean absolute attribution',
    'Mean attribution',
    'Correlation of value and attribution',
    'Samples that have it',
  )
  caption = (
    f'Of the {found["explained"]}; absent variables count as 0. Correlation: Spearman, of '
    'the mean value. Above 0: higher values raise the output.'
  )
  signs = [
    each['mean'] if each['correlation'] is None else each['correlation'] for each in top
  ]
  return [
    *blocks,
    explanation_plots.bars(
      [f'{_name(each)}, {each["modality"]}' for each in top],
      [each['mean_absolute'] for each in top],
      signs,
      f'Mean absolute attribution to the {found["explained"]}',
    ),
    Paragraph(
      'Orange: higher values raise the output, or, without a value, its presence does. '
      'Blue: they lower it.'
    ),
    Table(header, rows, (2, 3, 4, 5), caption),
  ]


def _name(each: Mapping[str, Any]) -> str:
  return f'{each["name"]} ({each["unit"]})' if each['unit'] else each['name']


def _pages(evaluation: Evaluation, found: Mapping[str, Any]) -> Table:
  kind = targets.of(evaluation.test.target)
  rows: list[tuple[Cell, ...]] = []
  for place, each in enumerate(found['patients'], start=1):
    truth = kind.label_in_words(np.asarray(each['label'], np.float64))
    predicted = kind.predicted_in_words(np.asarray(each['prediction']))
    rows.append(
      (
        link(each['page'], f'Sample {place}'),
        each['verdict'],
        predicted,
        truth,
        each['sample'],
        number(each['residual'], 4) + ('' if each['complete'] else ' (too large)'),
      )
    )
  header = ('', 'Prediction was', 'Predicted', 'True', 'Keyed hash', 'Residual')
  return Table(header, rows, (5,))


def _as_json(found: explain.Explanation | None) -> dict[str, Any] | None:
  if found is None:
    return None
  return {
    'explained': found.explained,
    'samples': len(found.samples),
    'incomplete': sum(not each.holds for each in found.completeness),
    'largest_residual': max(
      (abs(each.residual) for each in found.completeness), default=None
    ),
    'items': _importance(found.samples),
    'patients': [
      {
        'page': f'patients/{number}.html',
        'sample': each.hash,
        'fold': each.fold,
        'verdict': each.verdict,
        'label': each.label,
        'prediction': each.prediction,
        'explained': each.explained,
        'output': each.completeness.output,
        'baseline': each.completeness.baseline,
        'residual': each.completeness.residual,
        'complete': each.completeness.holds,
      }
      for number, each in enumerate(found.patients, start=1)
    ],
  }


def _importance(samples: Sequence[Sequence[ItemAttribution]]) -> list[dict[str, Any]]:
  """One entry a variable, the most important first; means are over all samples."""
  found: dict[tuple[str, str, str], list[ItemAttribution]] = defaultdict(list)
  for items in samples:
    for each in items:
      found[each.modality, each.name, each.unit].append(each)
  entries = []
  for (modality, name, unit), group in found.items():
    attributions = np.array([each.attribution for each in group])
    entries.append(
      {
        'modality': modality,
        'name': name,
        'unit': unit,
        'samples': len(group),
        'mean_absolute': float(np.abs(attributions).sum() / len(samples)),
        'mean': float(attributions.sum() / len(samples)),
        'correlation': _correlation(group),
      }
    )
  return sorted(entries, key=lambda each: (-each['mean_absolute'], each['name']))


def _correlation(group: Sequence[ItemAttribution]) -> float | None:
  """Rank correlation of value and attribution over the samples."""
  pairs = [(each.value, each.attribution) for each in group if each.value is not None]
  values, attributions = np.array(pairs, np.float64).reshape(-1, 2).T
  if len(pairs) < _LEAST_SAMPLES or np.ptp(values) == 0 or np.ptp(attributions) == 0:
    return None
  ranks = [stats.rankdata(each) for each in (values, attributions)]
  return float(np.corrcoef(*ranks)[0, 1])
