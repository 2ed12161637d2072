"""Every curve of a data set with all modalities, predicted by a cheap stand-in."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from data_pipeline.format.dataset import open_dataset
from medm2t_jax.evaluation import evaluate, robustness
from medm2t_jax.evaluation.sections import missing_modality
from tests.evaluation.stand_in import StandIn, predictor

SAMPLES = 8


@pytest.fixture(scope='module')
def curves(dataset):
  found = robustness.damaged_predictions(StandIn(dataset), predictor, SAMPLES)
  return {curve.name: curve for curve in robustness.pooled([found])}


def test_every_damage_has_its_levels(curves):
  levels = {
    name: tuple(level.level for level in curve.levels) for name, curve in curves.items()
  }
  noises = ('baseline_wander', 'powerline', 'electrode_motion', 'white')
  assert levels == {
    'later_start': (18, 12, 6, 3, 1),
    'times_earlier': (1, 3, 6, 12),
    'charted_late': (1, 2, 4),
    'events_removed': (10, 30, 50, 70, 90),
    'charted_rarely': (15, 60, 240),
    'values_noisy': (0.1, 0.3, 1),
    'values_tenfold': (1, 5),
    'variables_swapped': (1, 3),
    'units_changed': (1, 3),
    'modalities_lost': (10, 30, 50, 70, 90),
    'ecg_leads_lost': (1, 3, 6, 11),
    'ecg_bandwidth': (62.5, 31, 15),
    'ecg_arms_exchanged': (1,),
    **{f'ecg_{kind}': (24, 12, 6, 0, -6) for kind in noises},
  }
  for curve in curves.values():
    assert curve.reason is None
    assert len(np.unique(curve.samples)) == len(curve.samples) <= SAMPLES
    for level in curve.levels:
      assert level.prediction.shape == (len(curve.samples), 2)
      assert np.isfinite(level.prediction).all()
      # Waves of 1 mV under louder noise may exceed what a heart can do.
      assert level.refused == 0 or (curve.axis.endswith('(dB)') and level.level <= 0)


def test_samples_are_test_samples_that_have_what_is_damaged(curves, dataset):
  tested = dataset.index['sample_id'][dataset.rows(0, 'test')]
  has = lambda *names: dataset.index['sample_id'][
    np.any([dataset.lengths(name) > 0 for name in names], axis=0)
  ]
  for name, curve in curves.items():
    assert set(curve.samples) <= set(tested)
    if name.startswith('ecg_'):
      assert set(curve.samples) <= set(has('ecg'))
    elif name == 'events_removed':
      assert set(curve.samples) <= set(has('labs', 'notes', 'vitals'))


def test_undamaged_is_the_normal_prediction_bit_for_bit(curves, dataset):
  fold = StandIn(dataset)
  rows, predictions = evaluate.predict(fold, predictor, 'test', {'all': ()})
  normal = dict(
    zip(dataset.index['sample_id'][rows], predictions['all'].tolist(), strict=True)
  )
  for curve in curves.values():
    assert curve.undamaged.tolist() == [normal[sample] for sample in curve.samples]
  # Prepared signals have 125 Hz.
  whole = curves['ecg_bandwidth'].levels[0]
  np.testing.assert_array_equal(whole.prediction, curves['ecg_bandwidth'].undamaged)


def test_every_damage_changes_predictions(curves):
  for curve in curves.values():
    for level in curve.levels:
      if (curve.name, level.level) != ('ecg_bandwidth', 62.5):
        assert not np.array_equal(level.prediction, curve.undamaged), curve.name


def test_the_same_seed_gives_the_same_curves(curves, dataset):
  again = robustness.damaged_predictions(StandIn(dataset), predictor, SAMPLES)
  for curve in again:
    for level, other in zip(curve.levels, curves[curve.name].levels, strict=True):
      np.testing.assert_array_equal(level.prediction, other.prediction)


def test_absent_raw_files_leave_a_reason_and_the_other_curves(dataset, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(dataset.directory, copy)
  table = pd.read_parquet(copy / 'recordings.parquet')
  table['path'] = '/moved/' + table['path'].str.rsplit('/', n=1).str[-1]
  table.to_parquet(copy / 'recordings.parquet')
  found = robustness.damaged_predictions(StandIn(open_dataset(copy)), predictor, SAMPLES)
  for curve in robustness.pooled([found]):
    raw = curve.name in ('ecg_white', 'ecg_powerline', 'ecg_baseline_wander',
                         'ecg_electrode_motion')  # fmt: skip
    if raw:
      assert curve.reason is not None and not curve.levels
      assert curve.reason.startswith('raw recordings not found at /moved/r')
    else:
      assert curve.reason is None and curve.levels


def test_folds_are_pooled_and_one_may_have_nothing(curves):
  curve = curves['ecg_white']
  nothing = dataclasses.replace(
    curve, samples=np.zeros(0, np.int64), undamaged=None, levels=()
  )
  other = dataclasses.replace(curve, samples=curve.samples + 10**7)
  (found,) = robustness.pooled([[curve], [nothing], [other]])
  assert len(found.samples) == 2 * len(curve.samples) == len(found.undamaged)
  assert all(len(level.prediction) == len(found.samples) for level in found.levels)
  (found,) = robustness.pooled([[nothing], [nothing]])
  assert found.reason == 'no test sample has the modality that it damages'


@pytest.mark.parametrize('count', [1, 2, 3, 4, 5])
def test_scenarios_are_every_subset_once(count):
  names = ('static', 'labs', 'vitals', 'rhythm', 'ecg')[:count]
  found = missing_modality.modality_scenarios(names, every_subset=True)
  dropped = {frozenset(drop) for drop in found.values()}
  assert len(dropped) == len(found) == max(0, 2**count - 2)
  assert all(0 < len(drop) < count for drop in dropped)
  for name, drop in found.items():
    given = [each for each in names if each not in drop]
    if name.startswith('without '):
      assert drop == (name.removeprefix('without '),)
    else:
      assert name.removeprefix('only ').split(' + ') == given


def test_scenarios_of_many_modalities_and_of_a_quick_report():
  names = tuple('abcdefg')
  found = missing_modality.modality_scenarios(names, every_subset=True)
  sizes = [len(names) - len(drop) for drop in found.values()]
  assert {size: sizes.count(size) for size in set(sizes)} == {1: 7, 2: 21, 6: 7}
  quick = missing_modality.modality_scenarios(names, every_subset=False)
  assert len(quick) == 14 and 'only a' in quick and 'without g' in quick
  assert quick.items() <= found.items()
