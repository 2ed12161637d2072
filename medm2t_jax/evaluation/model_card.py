"""The model card (Mitchell et al. 2019, arXiv 1810.03993) as blocks and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipeline.format.schema import Schema
from medm2t_jax.evaluation.context import Context
from medm2t_jax.evaluation.results import Evaluation, fold_digest
from medm2t_jax.evaluation.sections.baselines import title
from medm2t_jax.report.blocks import (
  Block,
  Bullets,
  Callout,
  Details,
  Heading,
  Paragraph,
  Table,
  to_markdown,
)
from medm2t_jax.report.text import NONE, count, duration, in_words, source_name, task_name

_TARGETS = {
  'cvd': 'the class of cardiovascular disease at a hospitalisation within 90 days after '
  'an ECG',
  'cvd_all': 'whether a hospitalisation follows within 90 days after an ECG, and its class '
  'of cardiovascular disease',
  'mortality': 'death in hospital, predicted during a first ICU stay of at least 24 hours',
  'los': 'the length of a first ICU stay of at least 24 hours, in days',
}
_SOURCE_LIMITS = {
  'simulated': 'The patients are simulated: no metric here has any clinical meaning.',
  'mimic_iv': 'One hospital (Beth Israel Deaconess Medical Center, Boston), 2008 to 2022: '
  'other hospitals measure and code differently, and need their own validation.',
  'physionet2012': 'ICU stays of 2001 to 2008: care has changed since.',
}


def model_card(evaluation: Evaluation) -> list[Block]:
  """Data, cohort, intended use, limits, configuration and environment."""
  context, metrics = evaluation.context, evaluation.metrics
  schema = context.schema
  source = source_name(schema.source)
  test = metrics['test']
  seconds = [stage['seconds'] for stage in context.stages if stage['seconds']]
  hours = schema.observation_hours
  facts = [
    ('Predicts', predicts(schema)),
    ('Model', 'MedM2T (arXiv 2510.27321) in JAX/Flax'),
    ('Blended with', _blended_with(context)),
    ('Inputs', ', '.join(schema.modalities)),
    ('Observed', f'{hours:g} hours' if hours else 'no fixed length of time before it'),
    ('Source', source),
    ('Data version', context.dataset_version or NONE),
    ('Folds digest', fold_digest(context.fold_hashes) or NONE),
    ('Folds tested', ', '.join(metrics['folds'])),
    ('Test', f'{count(test["n"])} samples of {count(test["subjects"])} subjects'),
    ('Trained on', _trained_on(context)),
    ('Training time', duration(sum(seconds)) if seconds else NONE),
  ]
  return [
    Table(('', ''), facts),
    Heading('Intended use'),
    Bullets(
      [
        'Research on prediction from irregular clinical data, and comparison of methods.',
        'Not a medical device. Not for decisions about any patient, which need prospective '
        'validation at the place of use and approval by the authorities.',
      ]
    ),
    Heading('Limits'),
    Bullets(list(_limits(evaluation))),
    Heading('Cohort'),
    *_cohort(context.cohort),
    Details('Configuration', [_key_values(context.config)], printed=False),
    Details('Environment', [_key_values(context.environment)]),
  ]


def model_card_markdown(evaluation: Evaluation) -> str:
  """The content of `model_card.md`."""
  metrics = evaluation.metrics
  headline = metrics['headline']
  task = task_name(metrics['task'], metrics['target']['description'])
  source = source_name(metrics['source'])
  target = metrics['target']
  unit = f' {target["unit"]}' if target['unit'] else ''
  average = f' ({headline["average"]})' if headline['average'] else ''
  blocks: list[Block] = [
    Paragraph(
      f'Test {headline["name"]}{average}{unit}: {in_words(headline)}, with a '
      '95 % interval from a bootstrap over subjects.'
    ),
    *(Callout(note) for note in metrics['notes']),
    *model_card(evaluation),
  ]
  heading = to_markdown(Heading(f'Model card: {task}, {source}')).removeprefix('##')
  return heading + '\n' + '\n'.join(map(to_markdown, blocks))


def predicts(schema: Schema) -> str:
  """The predicted outcome and its horizon."""
  target = schema.target
  known = _TARGETS.get(schema.task) or target.description or schema.task
  until = target.horizon if schema.task not in _TARGETS else ''
  return f'{known} ({until})' if until else known


def _blended_with(context: Context) -> str:
  """Baselines in the blend."""
  target = context.schema.target
  names = [title(name, target) for name in context.config.get('blend', ())]
  return ', '.join(names) if names else 'nothing: the network predicts alone'


def _trained_on(context: Context) -> str:
  """Number of training subjects of the final model, and the run of validation metrics."""
  if not context.trained_on:
    return NONE
  final = _span([each['final'] for each in context.trained_on])
  if not context.refit:
    return f'{final} training subjects per fold'
  first = _span([each['first'] for each in context.trained_on])
  return (
    f'{final} subjects per fold, training and validation together, for the number of '
    f'epochs that a first run on the {first} training subjects chose on the validation '
    'subjects. Validation metrics are those of the first run.'
  )


def _span(counts: Sequence[int]) -> str:
  low, high = count(min(counts)), count(max(counts))
  return low if low == high else f'{low} to {high}'


def _limits(evaluation: Evaluation) -> Iterator[str]:
  metrics = evaluation.metrics
  specific = _SOURCE_LIMITS.get(metrics['source'])
  if specific:
    yield specific
  yield (
    'Retrospective: what was measured, and when, reflects the decisions of clinicians, '
    'and the model can learn from those.'
  )
  small = [
    f'{grouping["by"]}: {group["name"]}'
    for grouping in metrics.get('subgroups', ())
    for group in grouping['groups']
    if group['warning']
  ]
  if small:
    shown = '; '.join(small[:12]) + (
      f'; and {len(small) - 12} more' if len(small) > 12 else ''
    )
    yield f'Too few test samples to judge {len(small)} subgroups ({shown}).'
  undefined = [
    f'{name} ({metric["reason"]})'
    for name, metric in metrics['pooled']['overall'].items()
    if metric['value'] is None
  ]
  if undefined:
    yield f'Undefined on the test samples: {"; ".join(undefined)}.'
  if metrics['target']['kind'] != 'regression' and metrics['calibration']['after'] is None:
    yield f'Not calibrated: {metrics["calibration"]["reason"]}.'


def _cohort(cohort: Mapping[str, Any]) -> Iterator[Block]:
  steps = cohort.get('steps', [])
  if steps:
    yield Table(
      ('Inclusion step', 'Samples', 'Subjects'),
      [(each['step'], count(each['samples']), count(each['subjects'])) for each in steps],
      (1, 2),
    )
  rows: list[tuple[str, ...]] = []
  for table, reasons in cohort.get('rows', {}).items():
    if reasons:
      rows.append((table,))
      rows += [(reason, count(number)) for reason, number in reasons.items()]
  if rows:
    yield Details(
      'Rows dropped or repaired, by reason', [Table(('Reason', 'Rows'), rows, (1,))]
    )


def _key_values(values: Mapping[str, Any]) -> Table:
  return Table(('Name', 'Value'), list(_flat('', values)))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  for key, value in values.items():
    if isinstance(value, Mapping) and value:
      yield from _flat(f'{prefix}{key}.', value)
    else:
      yield f'{prefix}{key}', str(value)
