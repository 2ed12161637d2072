"""Samples with all modalities: completeness, absent values, attention, pages."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data_pipeline.format.subjects import order_key
from medm2t_jax.evaluation import explain
from medm2t_jax.evaluation.explain.timeline import patient_page
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.models.medm2t import MedM2T
from tests.support import fake_batch, kinds, small_bundle

MODALITIES = ('static', 'labs', 'vitals', 'ecg')
SCHEMA = fake_batch.schema('mortality').only(MODALITIES)
OPTIONS = dataclasses.replace(
  fake_batch.OPTIONS, segment_lengths=(12,), value_encoding='piecewise_linear',
  pooling='statistics', sequence='mean_last', trunk='ensemble', ensemble=2,
  single_stages='none',
)  # fmt: skip
ROWS = np.arange(5)
SAMPLE_IDS = 70_001_000 + ROWS
SCALE = 30


def batch_of(row: int) -> dict:
  """One sample; the second has no vitals, and the last lab events are padding."""
  batch = fake_batch.batch(rows=1, seed=row, recordings=3)
  del batch['vitals_categorical']
  batch['row'] = np.array([row], np.int32)
  batch['ecg']['time'][1] = 0  # the recording with all terms is the most recent one
  there = np.arange(12) < 9
  batch['labs'] = {key: array * there for key, array in batch['labs'].items()}
  if row == 1:
    batch['vitals'] = {key: array * 0 > 0 for key, array in batch['vitals'].items()}
    batch['vitals']['value'] = batch['vitals']['value'].astype(np.float32)
  return {
    key: {name: array.astype(fake[name].dtype) for name, array in batch[key].items()}
    if isinstance(fake := fake_batch.batch(rows=1)[key], dict)
    else batch[key]
    for key in batch
  }


def packed(rows: np.ndarray) -> dict:
  """Samples, -1 for padding, as one batch; recordings lie beside those of others."""
  samples = [batch_of(max(int(row), 0)) for row in rows]
  for place, row in enumerate(rows):
    samples[place]['ecg']['owner'] += place
    if row < 0:
      samples[place] = jax.tree.map(np.zeros_like, samples[place])
      samples[place]['row'] -= 1
  return jax.tree.map(lambda *parts: np.concatenate(parts), *samples)


class StandIn:
  """A fold with random parameters in a random blend that reads random samples."""

  def __init__(self):
    self.config = SimpleNamespace(
      seed=0,
      refit=False,
      data=SimpleNamespace(max_recordings=4),
      evaluation=SimpleNamespace(explained=2, explained_globally=2),
    )
    self.fold, self.final, self.reader = 0, self, self
    self.dataset = SimpleNamespace(
      schema=SCHEMA,
      subject_key=order_key('fake'),
      index={'sample_id': SAMPLE_IDS, 'label': np.array([0, 0, 0, 1, 1])},
    )
    self.model_config = fake_batch.with_sizes(
      model_config('mortality', OPTIONS, SCHEMA), 'ecg', signal_plan=((4, 20),)
    )
    self.model = MedM2T(self.model_config, axis_name='device')
    init = lambda: MedM2T(self.model_config).init(
      jax.random.key(0), batch_of(0), stage='multimodal', train=False
    )
    shapes = jax.eval_shape(init)
    self.variables = fake_batch.variables(shapes, 0)
    # Random parameters hardly pass on what a sample says.
    for name in SCHEMA.modalities:
      self.variables['params']['fusion'][f'project_{name}']['kernel'] *= SCALE
    self.variables['params']['trunks_multimodal']['head'] *= SCALE
    self.blend = small_bundle.random_blend(self.model_config, 0)
    self.blend['models']['logistic_regression']['coefficient'] *= SCALE

  def modalities_of(self, stage):
    assert stage == 'multimodal'
    return SCHEMA.modalities

  def plan(self, rows, modalities, batch_size, *, devices):  # pyright: ignore
    assert devices == 1
    return SimpleNamespace(rows=rows)

  def read_here(self, plan, modalities):  # pyright: ignore
    """Two rows at a time, of which the last may be padding."""
    rows = np.append(plan.rows, -1)
    for pair in rows[: len(rows) // 2 * 2].reshape(-1, 2):
      yield jax.tree.map(lambda array: array[np.newaxis], packed(pair))


@pytest.fixture(scope='module')
def fold():
  return StandIn()


@pytest.fixture(scope='module')
def found(fold):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(explain, 'restore_best', lambda fold, stage: (fold.variables, None))
    patch.setattr(explain.blend, 'restore', lambda fold: fold.blend)
    yield explained(fold)


def explained(fold):
  p1 = np.array([0.1, 0.05, 0.2, 0.9, 0.01])
  result = explain.explain([fold], [ROWS], [np.stack([1 - p1, p1], axis=1)])
  assert result is not None
  return result


def test_attributions_add_up(found):
  every = [*found.completeness, *(each.completeness for each in found.patients)]
  assert len(every) == 4
  moved = [abs(each.output - each.baseline) for each in every]
  assert np.median(moved) > 0.2, 'else this shows nothing'
  # What they add up to is the blend of the bundle: tests/inference/attribution.
  for patient in found.patients:
    of_network = sum(
      array.sum() for each in patient.attributions.values() for array in each.values()
    )
    total = sum(item.attribution for item in patient.items)
    assert total == pytest.approx(patient.completeness.attributed, abs=1e-3)
    assert abs(total - of_network) > 0.01, 'else the simple models add nothing'
  for each in every:
    assert each.holds, each
  for items, complete in zip(found.samples, found.completeness, strict=True):
    np.testing.assert_allclose(
      sum(item.attribution for item in items), complete.attributed, atol=1e-3
    )


def test_what_is_absent_has_no_attribution(found):
  (right, wrong) = found.patients
  assert (right.verdict, wrong.verdict) == ('right', 'wrong')
  for patient in (right, wrong):
    arrays, given = patient.arrays, patient.attributions
    for name in kinds.events(SCHEMA):
      assert not given[name]['token'][~arrays[name]['mask']].any()
    assert not given['vitals']['value'][~arrays['vitals']['observed']].any()
    assert not given['static']['numeric'][~arrays['static']['numeric_mask']].any()
    ecg = arrays['ecg']
    assert not given['ecg']['measurements'][~ecg['measurements_mask']].any()
    assert not given['ecg']['terms'][ecg['terms'] == 0].any()
    assert not given['ecg']['signal'][~ecg['mask']].any()
    assert ecg['mask'].any() and given['ecg']['signal'][ecg['mask']].any()
    assert given['ecg']['terms'].any() and given['ecg']['measurements'].any()
    assert given['labs']['token'].any() and given['static']['numeric'].any()
  assert not right.arrays['vitals']['observed'].any()
  assert wrong.attributions['vitals']['value'].any()


def test_attention_is_shared_among_valid_tokens(found):
  right, wrong = found.patients
  pairs = {(look.of, look.by) for look in wrong.attention}
  modalities = SCHEMA.modalities
  assert {(i, j) for i in modalities for j in modalities if i != j} <= pairs
  assert ('ECG signal', 'ECG terms') in pairs
  assert not any('vitals' in (look.of, look.by) for look in right.attention)
  for patient in found.patients:
    for look in patient.attention:
      assert len(look.weights) == len(look.tokens)
      np.testing.assert_allclose(look.weights.sum(), 1, atol=1e-5)
  # Nothing is observed in the first three of 24 hours.
  look = next(look for look in wrong.attention if look.of == 'vitals')
  assert look.tokens[0] == '−24 to −22.8 h' and look.tokens[-1].endswith(' to 0 h')
  assert look.weights[0] == 0 < look.weights[-1]


def test_pages_name_nobody_and_need_no_file(found):
  right, wrong = found.patients
  residual = dataclasses.replace(wrong.completeness, attributed=99.0)
  wrong = dataclasses.replace(wrong, completeness=residual)
  for number, patient in enumerate((right, wrong), start=1):
    page = patient_page(SCHEMA, patient, number)
    assert patient.hash in page
    for sample in SAMPLE_IDS:
      assert str(sample) not in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(
      re.match(r'data:(image/svg\+xml|text/csv);base64,|#', each) for each in links
    )
    assert '<script' not in page and '@import' not in page
    for anchor in ('prediction', 'contributions', 'course', 'events', 'ecg', 'attention'):
      assert f'<section id="{anchor}">' in page
    assert 'alt="Most recent ECG, twelve leads"' in page
    assert ('do not add up' in page) == (patient is wrong), 'a large residual is said'
    assert len(page) < 4_000_000
