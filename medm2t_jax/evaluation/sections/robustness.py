"""What damaged input does to the headline metric, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation import robustness
from medm2t_jax.evaluation.context import DamageCurve
from medm2t_jax.evaluation.metrics.metrics import digits_of, headline_metric
from medm2t_jax.evaluation.metrics.paired import Comparison
from medm2t_jax.evaluation.results import LEAST_SAMPLES, Evaluation
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.evaluation.sections.judging import in_unit, worse
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import (
  Block,
  Callout,
  Cell,
  Figure,
  Gallery,
  Paragraph,
  Section,
  Table,
)
from medm2t_jax.report.text import (
  NONE,
  count,
  in_brackets,
  in_words,
  interval,
  number,
  times,
)
from medm2t_jax.runs.run import Run

NAME = 'robustness'
_UNDAMAGED = 'none'
_SAME = 'no prediction changes'


def needs(folds: Sequence[Run]) -> Needs:
  """Predictions of some test samples under every damage."""
  share = max(1, folds[0].config.evaluation.robustness_samples // len(folds))
  damaged = lambda run, predictor: robustness.damaged_predictions(run, predictor, share)
  return Needs(of_fold=damaged)


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """The headline metric under every damage.

  Returns:
    'robustness': [{'name', 'title', 'axis', 'reason', 'undamaged', 'levels'}], one a
    curve. `undamaged` is the estimate on the same samples without damage, None where
    `reason` says why there is no curve; `levels` is [{'level': on the axis, 'metric':
    estimate, 'difference': estimate, 'changed': samples whose prediction is another,
    'refused': recordings}]. `difference` is damaged minus undamaged on the same resamples.
  """
  curves = robustness.pooled(evaluation.given[NAME])
  how = evaluation.resamples, evaluation.seed
  return {'robustness': [_curve_metrics(evaluation.test, curve, *how) for curve in curves]}


def verdict(evaluation: Evaluation) -> str | None:
  """How many kinds of damage make the headline metric worse, and which does most."""
  curves = evaluation.metrics['robustness']
  if not curves:
    return None
  rows, name = evaluation.test, evaluation.metrics['headline']['name']
  shown = [curve for curve in curves if curve['undamaged'] is not None]
  judged = [
    curve
    for curve in shown
    if _moves(curve)
    and curve['undamaged']['n'] >= LEAST_SAMPLES
    and curve['undamaged']['low'] is not None
  ]
  if not judged:
    most = max((curve['undamaged']['n'] for curve in shown), default=0)
    if most >= LEAST_SAMPLES and not any(map(_moves, shown)):
      return 'No damage that was tried changes any prediction.'
    samples = times(most, 'sample', 'samples')
    return f'What damaged input does cannot be judged: too few were damaged, {samples}.'
  found = [
    (curve, level)
    for curve in judged
    for level in curve['levels']
    if worse(level['difference'], rows)
  ]
  kinds = times(len(judged), 'kind', 'kinds')
  if not found:
    return f'None of {kinds} of damage is shown to make {name} worse.'
  many = len({curve['name'] for curve, _ in found})
  curve, level = max(found, key=lambda each: abs(each[1]['difference']['value']))
  return (
    f'{many} of {kinds} of damage make {name} worse, most '
    f'"{curve["title"]}" ({curve["axis"]}: {_level(level)}): difference '
    f'{in_unit(level["difference"], rows.target)}.'
  )


def render(evaluation: Evaluation) -> Section | None:
  """The same model under noise, lost data and shifted times."""
  curves = evaluation.metrics['robustness']
  if not curves:
    return None
  shown = [curve for curve in curves if curve['undamaged'] is not None]
  blocks: list[Block] = [
    Paragraph(
      'The trained model on damaged test input; nothing is trained again. Each damage is '
      'done to random test samples that have what it damages; differences are to the '
      'same samples without damage, on the same resamples. Values that damage takes '
      'beyond the limits of their variable are dropped, as in preparation. '
      'Signal-to-noise ratios are per lead, of the raw recording; machine measurements '
      'and report terms of an ECG are not damaged.'
    )
  ]
  reasons: dict[str, list[str]] = {}
  for curve in curves:
    if curve['undamaged'] is None:
      reasons.setdefault(curve['reason'], []).append(curve['title'])
  blocks += [
    Callout(f'Not shown: {", ".join(titles)}: {reason}.')
    for reason, titles in reasons.items()
  ]
  still = [curve for curve in shown if not _moves(curve)]
  if still:
    titles = ', '.join(curve['title'] for curve in still)
    blocks.append(
      Callout(f'Cannot move, because no prediction changes at any level: {titles}.')
    )
  if shown:
    moving = [curve for curve in shown if _moves(curve)]
    blocks += [Gallery(_pictures(evaluation, moving)), _table(evaluation, shown)]
  return Section('robustness', 'With damaged input', blocks)


def _moves(curve: Mapping[str, Any]) -> bool:
  """Whether any prediction changes at any level."""
  return any(each['changed'] for each in curve['levels'])


def _pictures(evaluation: Evaluation, curves: Sequence[Mapping[str, Any]]) -> list[Figure]:
  """One picture an axis, where there is more than one level."""
  target = evaluation.test.target
  name = evaluation.metrics['headline']['name'] + (in_brackets(target.unit))
  axes: dict[str, list[Mapping[str, Any]]] = {}
  for curve in curves:
    if len(curve['levels']) > 1:
      axes.setdefault(curve['axis'], []).append(curve)
  return [
    plots.damage(
      {
        curve['title']: [curve['undamaged'], *(each['metric'] for each in curve['levels'])]
        for curve in group
      },
      [_UNDAMAGED, *(_level(each) for each in group[0]['levels'])],
      axis,
      name,
    )
    for axis, group in axes.items()
  ]


def _table(evaluation: Evaluation, curves: Sequence[Mapping[str, Any]]) -> Table:
  digits = digits_of(evaluation.test.target)
  rows: list[Sequence[Cell]] = []
  for curve in curves:
    base = curve['undamaged']
    of = f'{count(base["n"])} samples of {count(base["subjects"])} subjects'
    rows.append((f'{curve["title"]} ({of})',))
    rows.append(
      (_UNDAMAGED, number(base['value'], digits), interval(base, digits), NONE, '')
    )
    for each in curve['levels']:
      rows.append(
        (
          f'{curve["axis"]}: {_level(each)}',
          number(each['metric']['value'], digits),
          interval(each['metric'], digits),
          in_words(each['difference'], digits) if each['changed'] else _SAME,
          count(each['refused']) if each['refused'] else '',
        )
      )
  header = (
    'Damage',
    evaluation.metrics['headline']['name'],
    '95 % interval',
    'Difference, paired',
    'Recordings refused',
  )
  if not any(each['refused'] for curve in curves for each in curve['levels']):
    header, rows = header[:-1], [row[:4] for row in rows]
  return Table(header, rows, (1, 4))


def _changed(prediction: np.ndarray, undamaged: np.ndarray) -> int:
  """Number of samples whose prediction (n c) or (n,) is another."""
  differs = prediction != undamaged
  return int(differs.reshape(len(differs), -1).any(axis=1).sum())


def _level(each: Mapping[str, Any]) -> str:
  return f'{each["level"]:g}'.replace('-', '\N{MINUS SIGN}')


def _curve_metrics(
  rows: Rows, curve: DamageCurve, resamples: int, seed: int
) -> dict[str, Any]:
  result: dict[str, Any] = {
    'name': curve.name,
    'title': curve.title,
    'axis': curve.axis,
    'reason': curve.reason,
    'undamaged': None,
    'levels': [],
  }
  if curve.undamaged is None:
    return result
  chosen = rows.take(np.isin(rows.sample, curve.samples))
  if len(chosen) != len(curve.samples):
    raise DataError(
      f'damage {curve.name}: {len(curve.samples)} samples, of which {len(chosen)} are '
      'test rows. Evaluate again with --mode=eval.'
    )
  sorter = np.argsort(curve.samples)
  order = sorter[np.searchsorted(curve.samples, chosen.sample, sorter=sorter)]
  undamaged = chosen.with_prediction(curve.undamaged[order], f'damage {curve.name}')
  headline = headline_metric(rows)
  comparison = Comparison(undamaged, (headline,), resamples, seed)
  result['undamaged'] = comparison.reference()[headline]
  for level in curve.levels:
    metrics, differences = comparison.other(level.prediction[order], f'damage {curve.name}')
    result['levels'].append(
      {
        'level': level.level,
        'metric': metrics[headline],
        'difference': differences[headline],
        'changed': _changed(level.prediction, curve.undamaged),
        'refused': level.refused,
      }
    )
  return result
