"""Predictions and a context to report on, made from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from scipy import special

from data_pipeline.format.modalities import Events, Static, Waveform
from data_pipeline.format.schema import Item, Schema, Target
from medm2t_jax.evaluation.context import Context, DamageCurve
from medm2t_jax.evaluation.sections import SECTIONS

CLASSES = {
  'mortality': ('survived', 'died'),
  'cvd': ('no CVD', 'coronary heart disease', 'stroke', 'heart failure'),
  'los': (),
  'phenotypes': ('shock', 'sepsis', 'stroke', 'none has it'),
}
RACES = (
  'WHITE',
  'BLACK/AFRICAN AMERICAN',
  'ASIAN',
  'HISPANIC/LATINO',
  '<script>alert(1)</script>',
)


def _schema(task: str) -> Schema:
  """A schema of three modalities."""
  kinds = {'los': 'regression', 'mortality': 'binary', 'phenotypes': 'multilabel'}
  kind = kinds.get(task, 'multiclass')
  return Schema(
    task=task,
    source='simulated',
    target=Target(kind, CLASSES[task], unit='days' if task == 'los' else ''),
    modalities={
      'static': Static((Item('age', 'Age', 'years'),)),
      'labs': Events((Item('50813', 'Lactate', 'mmol/L'),)),
      'ecg': Waveform(('164889003',)),
    },
    attributes=('age', 'sex', 'race', 'admission_type'),
    observation_hours=24.0,
  )


def _predictions(task: str, samples: int, seed: int = 0, rate: float = 0.15) -> pa.Table:
  """Two folds of `samples` test rows in all and half as many validation rows each.

  Subjects have one or more samples, the predictions are over-confident.
  """
  random = np.random.default_rng(seed)
  parts = []
  for fold in (0, 1):
    for split, n in (('test', samples // 2), ('validation', samples // 4)):
      base = 10**6 * (2 * fold + (split == 'test'))
      columns: dict[str, Any] = {
        'sample_id': base + np.arange(n),
        'subject_id': base + np.sort(random.integers(max(1, 2 * n // 3), size=n)),
        'fold': np.full(n, fold),
        'split': [split] * n,
        'weight': np.ones(n),
      }
      columns |= _predicted(task, n, rate, random)
      age = [None if i % 17 == 0 else 20 + 70 * random.random() for i in range(n)]
      columns['age'] = pa.array(age, pa.float64())
      columns['sex'] = random.choice(['F', 'M'], n).tolist()
      columns['race'] = random.choice(RACES, n, p=(0.6, 0.2, 0.1, 0.07, 0.03)).tolist()
      columns['admission_type'] = random.choice(
        ['URGENT', 'EW EMER.', 'ELECTIVE'], n
      ).tolist()
      columns['present_static'] = np.ones(n, bool)
      columns['present_labs'] = random.random(n) < 0.95
      columns['present_ecg'] = random.random(n) < 0.5
      parts.append(pa.table(columns))
  return pa.concat_tables(parts)


def _predicted(
  task: str, n: int, rate: float, random: np.random.Generator
) -> dict[str, Any]:
  if task == 'los':
    true = random.lognormal(1.1, 0.7, n)
    return {'label': true, 'prediction': 1.5 + 0.5 * true + random.normal(0, 1, n)}
  classes = len(CLASSES[task])
  if task == 'phenotypes':
    return _labels(n, random)
  prior = np.full(classes, rate)
  prior[0] = 1 - rate * (classes - 1)
  label = random.choice(classes, n, p=prior)
  logits = (
    np.log(np.maximum(prior, 1e-3))
    + 1.6 * np.eye(classes)[label]
    + random.normal(0, 1, (n, classes))
  )
  probability = special.softmax(1.7 * logits, axis=1)
  columns = {f'p{index}': probability[:, index] for index in range(classes)}
  return {'label': label.astype(float), **columns}


def _labels(n: int, random: np.random.Generator) -> dict[str, Any]:
  """Labels of which some are not known, the last one true of nobody."""
  share = np.array([0.3, 0.1, 0.05, 0.0])
  label = (random.random((n, 4)) < share).astype(float)
  score = special.logit(np.maximum(share, 0.01)) + 1.5 * label + random.normal(0, 1, (n, 4))
  unknown = random.random((n, 4)) < 0.1
  unknown[:, 0] = False
  probability = special.expit(score)
  listed = [
    [None if missing else value for value, missing in zip(*row, strict=True)]
    for row in zip(label, unknown, strict=True)
  ]
  return {'label': listed, **{f'p{index}': probability[:, index] for index in range(4)}}


class About(NamedTuple):
  """What a report is made of beside the predictions."""

  context: Context
  given: Mapping[str, Any]

  @property
  def schema(self) -> Schema:
    return self.context.schema


def _context(
  task: str,
  test: int = 0,
  *,
  damage: Sequence[DamageCurve] = (),
  baselines: Mapping[str, np.ndarray] | None = None,
  left_out: Sequence[str] = (),
  **fields: Any,
) -> About:
  """All sections; `test` rows in each of two scenarios, none where 0."""
  random = np.random.default_rng(5)
  outputs = max(1, len(CLASSES[task]))
  shape = (test,) if task == 'los' else (test, outputs)
  values = random.random(shape) + 0.1
  if task == 'phenotypes':
    values /= 2
  elif task != 'los':
    values /= values.sum(axis=1, keepdims=True)
  history = [
    {
      'epoch': epoch,
      'train_loss': 1 / (epoch + 1),
      'validation_loss': 0.2 + 1 / (epoch + 1.2),
    }
    for epoch in range(6)
  ]
  stages = [
    {
      'fold': fold, 'refit': False, 'stage': stage, 'epochs': 6, 'best_epoch': 5,
      'validation_loss': 0.361, 'parameters': 123_456, 'seconds': 75.2, 'history': history,
    }
    for fold in (0, 1)
    for stage in ('labs', 'ecg', 'multimodal')
  ]  # fmt: skip
  defaults: dict[str, Any] = {
    'schema': _schema(task),
    'config': {'task': task, 'model': {'size': 'small', 'width': 64}, 'seed': 0},
    'cohort': {
      'steps': [
        {'step': 'ICU stays', 'samples': 5200, 'subjects': 4000},
        {'step': 'first stay of a subject', 'samples': 4000, 'subjects': 4000},
        {'step': 'stay of at least 24 hours', 'samples': 3120, 'subjects': 3120},
      ],
      'rows': {'labevents': {'after the prediction time': 120_311, 'no value': 921}},
    },
    'environment': {'python': '3.11', 'jax': '0.10.2', 'devices': '8 CPU'},
    'stages': stages,
    'dataset_version': 'simulated-1.0.0',
    'fold_hashes': [['a1', 'b2'], ['c3']],
    'notes': ['Simulated data: no clinical meaning.'],
    'sections': [each.NAME for each in SECTIONS],
  }
  given = {
    'missing_modality': {'labs': values, 'static, labs': values[::-1]} if test else {},
    'baselines': (baselines or {}, left_out),
    'robustness': [damage] if damage else [],
    'explanation': None,
  }
  return About(Context(**{**defaults, **fields}), given)


@pytest.fixture(scope='session')
def predictions() -> Callable[..., pa.Table]:
  """`predictions(task, samples, seed=0, rate=0.15)`: see `_predictions`."""
  return _predictions


@pytest.fixture(scope='session')
def context() -> Callable[..., About]:
  """`context(task, test=0, ...)`: see `_context`."""
  return _context
