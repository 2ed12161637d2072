"""The ablations of an experiment, as data: questions and changed config values.

`declared` lists them for an experiment and a data set. The changes determine which stages
are trained again (`ablation_study.definition`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from data_pipeline.format.schema import Schema
from medm2t_jax import modalities
from medm2t_jax.experiment import Experiment
from medm2t_jax.modalities.ablation import Ablation
from medm2t_jax.models.modality import MULTIMODAL

WINDOW_COUNTS = (1, 3, 10)


def declared(config: Experiment, schema: Schema) -> tuple[Ablation, ...]:
  """All ablations, including those that do not apply.

  Args:
    config: of the full model.
    schema: of its data set.
  """
  return (
    *_modalities(config, schema),
    *_trunk(config),
    *_fusion(config, schema),
    *modalities.ablations(config.model, schema.modalities),
    *_windows(config, schema),
    *_training(config, schema),
  )


def end_to_end(config: Experiment) -> dict[str, Any]:
  """Only the multimodal stage, from fresh parameters.

  Nothing is frozen. Its learning rate is the median of those of the stages that it would
  have started from, because its own rate is for fine-tuning.
  """
  sources = config.recipe[MULTIMODAL].starts_from
  rates = [config.recipe[name].learning_rate for name in sources]
  changes = {
    'recipe.multimodal.starts_from': (),
    'recipe.multimodal.frozen': (),
    'model.single_stages': 'none',
    'stages': 'multimodal',
  }
  if rates:
    changes['recipe.multimodal.learning_rate'] = statistics.median(rates)
  return changes


def published() -> dict[str, Any]:
  """The model of the paper: its encoding of events, and encoders with plain decoders."""
  options = {**modalities.published(), 'trunk': 'decoder', 'deep': 'late'}
  return {f'model.{name}': value for name, value in options.items()}


def _modalities(config: Experiment, schema: Schema) -> Iterator[Ablation]:
  found = schema.names
  known = dict.fromkeys([*found, *config.recipe[MULTIMODAL].starts_from])
  for kind in ('only', 'without'):
    for name in known:
      kept = (name,) if kind == 'only' else tuple(each for each in found if each != name)
      reason = ''
      if name not in found:
        reason = f'the data set has no {name}'
      elif len(found) == 1:
        reason = 'the data set has no other modality'
      elif kind == 'without' and len(found) == 2:
        reason = f'with two modalities, this is only_{kept[0]}'
      question = f'How good is {name} alone?'
      if kind == 'without':
        question = f'What does {name} add to the others?'
      yield Ablation(
        f'{kind}_{name}', 'Modalities', question, {'data.modalities': kept}, reason
      )


def _trunk(config: Experiment) -> Iterator[Ablation]:
  reason = ''
  if config.model.trunk != 'ensemble':
    reason = "model.trunk='decoder' has no ensemble"
  fresh = '' if config.model.single_stages == 'late' else 'the experiment adds none'
  yield Ablation(
    'without_deep_network',
    'Trunk',
    'What does the deep network add to an ensemble that reads summary statistics?',
    {'model.deep': 'none', 'recipe.multimodal.frozen': ()},
    reason,
  )
  yield Ablation(
    'without_ensemble',
    'Trunk',
    'What does the ensemble of summary statistics add to the deep network?',
    {'model.trunk': 'decoder', 'model.deep': 'late'},
    reason,
  )
  yield Ablation(
    'deep_vectors_as_chunks',
    'Trunk',
    'Is the deep network better inside the ensemble than added at the end?',
    {'model.deep': 'chunks'},
    reason,
  )
  yield Ablation(
    'without_single_stages',
    'Trunk',
    'Is it worth adding the predictions of single modalities?',
    {'model.single_stages': 'none'},
    reason or fresh,
  )
  yield Ablation(
    'one_member',
    'Trunk',
    'What is the number of ensemble members worth?',
    {'model.ensemble': 1},
    reason,
  )


def _fusion(config: Experiment, schema: Schema) -> Iterator[Ablation]:
  # Parts of a modality may also be fused.
  inside = any(modalities.kind_of(each).fuses for each in schema.modalities.values())
  alone = len(schema.modalities) == 1 and not inside
  reason = 'the data set has only one modality, so nothing is fused' if alone else ''
  other = 'after' if config.model.shared_encoder == 'before' else 'before'
  yield Ablation(
    'without_attention',
    'Fusion',
    'What does Bi-Modal Attention add to concatenated vectors?',
    {'model.fusion': 'none'},
    reason,
  )
  yield Ablation(
    'attend_over_summary',
    'Fusion',
    'Are the time tokens of the other modality worth more than its summary?',
    {'model.attend_over': 'summary'},
    reason,
  )
  yield Ablation(
    f'shared_encoder_{other}',
    'Fusion',
    f'Does it matter that the shared encoder is {config.model.shared_encoder} '
    'Bi-Modal Attention?',
    {'model.shared_encoder': other},
    reason,
  )


def _windows(config: Experiment, schema: Schema) -> Iterator[Ablation]:
  hours = schema.observation_hours
  windows = modalities.windows(config.model, schema.modalities, hours)
  for count in WINDOW_COUNTS:
    yield Ablation(
      f'windows_{count}',
      'Time',
      f'What is lost with {count} time {"window" if count == 1 else "windows"}?',
      {
        f'model.windows.{name}': _cuts(each.kind, count, schema)
        for name, each in windows.items()
      },
      '' if windows else 'the data set has no modality with time windows',
    )


def _cuts(kind: str, count: int, schema: Schema) -> tuple[str, tuple[float, ...]]:
  """Cuts of windows with equal shares of the events, or of the observation window."""
  shares = [place / count for place in range(1, count)]
  hours = schema.observation_hours
  if kind == 'hours' and hours is not None:
    return 'hours', tuple(hours * (share - 1) for share in shares)
  return 'percentiles', tuple(100 * share for share in shares)


def _training(config: Experiment, schema: Schema) -> Iterator[Ablation]:
  del schema
  fresh = not config.recipe[MULTIMODAL].starts_from
  yield Ablation(
    'without_pretraining',
    'Training',
    'What is it worth to train each modality separately first?',
    end_to_end(config),
    'the experiment has no pretraining' if fresh else '',
  )
  yield Ablation(
    'without_modality_dropout',
    'Training',
    'Does it help to hide modalities in training?',
    {'model.modality_dropout': 0.0},
  )
