"""Predictions, fitted state and shuffled labels, and the command itself."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.reading import input_pipeline, planning
from medm2t_jax.audit import audit, fitted, predictions, shuffled
from medm2t_jax.evaluation import evaluate
from medm2t_jax.modalities import fitting
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.training import steps
from tests.support import main_command, staging_fixture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def restored(trained):
  return restore_best(trained, evaluate.STAGE)


def test_predictions_do_not_depend_on_the_batch(trained, restored):
  ours = steps.predictor(trained.model, evaluate.STAGE, restored[0])
  check = predictions.check(trained, ours)
  assert check.passed and check.measured <= 1e-5


def test_a_model_that_looks_at_its_batch_is_found(trained, restored):
  honest = steps.predictor(trained.model, evaluate.STAGE, restored[0])

  def leaking(batch):
    logits = np.asarray(honest(batch))
    return logits + 0.1 * logits.mean(axis=1, keepdims=True) * [[[0, 1]]]

  check = predictions.check(trained, leaking)
  assert not check.passed and check.measured > 1e-4


def test_the_fitted_state_of_a_checkpoint_passes(trained, restored):
  state, lineage = fitted.check(trained, *restored, fitted.fit_again(trained))
  assert state.passed and lineage.passed and state.measured == 0


def test_a_state_fitted_with_test_subjects_is_found(trained, restored):
  variables, lineage = restored
  modalities = trained.dataset.schema.names
  rows = [trained.dataset.rows(0, split) for split in ('train', 'test')]
  plan = trained.reader.plan(np.concatenate(rows), modalities, 16)
  statistics = fitting.fit(
    input_pipeline.batches(
      trained.dataset, plan, modalities=modalities, batching=trained.config.data
    ),
    trained.model_config.modalities,
    trained.dataset.schema.target,
  )
  leaking = fitting.into_collection(statistics, variables['fitted'])
  leaking = {**variables, 'fitted': leaking}
  state, _ = fitted.check(trained, leaking, lineage, fitted.fit_again(trained))
  assert not state.passed and 'center' in state.detail


def test_an_index_that_lets_test_subjects_train_is_found(trained, restored):
  """Both the checkpoint and a second fit would follow the index: the hashes do not."""
  index = trained.dataset.index
  moved = {**index, 'fold': np.where(index['fold'] == 0, 1, index['fold'])}
  dataset = dataclasses.replace(trained.dataset, index=moved)
  spoiled = Run(trained.config, dataset, 0, trained.workdir)
  state, _ = fitted.check(spoiled, *restored, fitted.fit_again(spoiled))
  assert not state.passed and 'center' in state.detail


def test_a_lineage_with_a_test_subject_is_found(trained, restored):
  variables, lineage = restored
  tests, again = trained.splits.subject_hashes('test'), fitted.fit_again(trained)
  for spoiled in (
    dataclasses.replace(lineage, fitted_on=lineage.fitted_on | set(sorted(tests)[:1])),
    dataclasses.replace(lineage, selected_on=lineage.selected_on | set(sorted(tests)[:1])),
  ):
    check = fitted.check(trained, variables, spoiled, again)[1]
    assert not check.passed and check.measured == 1


def test_everything_is_poisoned_in_the_given_rows_alone(dataset):
  batching = staging_fixture.batching()
  modalities = dataset.schema.names
  plan = planning.plan_epoch(
    dataset, np.arange(len(dataset)), modalities=modalities, batching=batching, batch_rows=8
  )
  batches = input_pipeline.batches(dataset, plan, modalities=modalities, batching=batching)
  for batch in batches:
    rows = np.zeros(batch['row'].shape, bool)
    rows[:, ::2] = batch['row'][:, ::2] >= 0
    poisoned = fitted.poison(batch, rows, dataset.schema)
    for name in modalities:
      where = rows
      if name == 'ecg':
        where = rows[0][batch['ecg']['owner']] & batch['ecg']['mask']
      for field, array in batch[name].items():
        changed = poisoned[name][field]
        assert changed.dtype == array.dtype
        np.testing.assert_array_equal(changed[~where], array[~where])
        if array.dtype == np.float32:
          assert (changed[where] == 1e9).all()
        if array.dtype == bool:
          assert changed[where].all()


def test_nothing_is_learnt_from_shuffled_labels(trained):
  check = shuffled.check(trained)
  assert check.passed and 0 < check.measured < 1


def test_a_label_that_reaches_an_input_is_found(trained, monkeypatch):
  honest: Any = shuffled.shuffled_run

  def leaking(*arguments):
    run, label = honest(*arguments)

    def leak(batch):
      batch = run.reader.change(batch)
      numeric = batch['static']['numeric'].copy()
      numeric[..., 0] = batch['label']
      return {**batch, 'static': {**batch['static'], 'numeric': numeric}}

    return Run(run.config, run.dataset, run.fold, run.workdir, change=leak), label

  monkeypatch.setattr(shuffled, 'shuffled_run', leaking)
  check = shuffled.check(trained)
  assert not check.passed and check.measured > 0.9


def test_labels_are_permuted_among_the_subjects_of_each_split(trained):
  _, label = shuffled.shuffled_run(trained, 'static', trained.workdir)
  index = trained.dataset.index
  assert not np.array_equal(label, index['label'])
  for split in ('train', 'validation', 'test'):
    rows = trained.dataset.rows(0, split)
    np.testing.assert_array_equal(np.sort(label[rows]), np.sort(index['label'][rows]))
  # Blocks of equal size move as they are.
  subject = np.repeat(np.arange(50), 2)
  permuted = shuffled.permute_by_subject(subject, subject, np.random.default_rng(0))
  assert (permuted.reshape(-1, 2) == permuted[::2, None]).all()
  assert not np.array_equal(permuted, subject)


def test_association_is_auroc_or_correlation():
  label = np.array([0, 0, 1, 1])
  scores = np.array([[1], [3], [2], [4.0]])
  of_both = np.stack([label, 1 - label])[:, :, np.newaxis]
  np.testing.assert_array_equal(shuffled.association(scores, of_both), [0.75, 0.25])
  # Of two labels the mean; who has no label, and a label that all have, do not count.
  known = np.array([[0, 1, np.nan], [0, 1, 0], [1, 1, 1], [1, 1, 0.0]])
  scores = np.array([[1, 1, 4], [3, 2, 1], [2, 3, 3], [4, 4, 2.0]])
  assert shuffled.association(scores, known[np.newaxis]) == (0.75 + 1) / 2
  days, found = np.array([1.0, 2, 3, 4]), np.array([[10.0, 20, 30, 90]])
  assert shuffled.association(days, found) == pytest.approx(1)
  assert shuffled.association(days, -found) == pytest.approx(-1)


def test_without_a_checkpoint_it_is_an_error(trained, tmp_path):
  folds = [Run(trained.config, trained.dataset, 0, tmp_path)]
  with pytest.raises(DataError, match='not complete'):
    audit(folds)


def test_the_command_passes_clean_data_and_fails_on_a_leak(trained, tmp_path, renamed):
  data, workdir = tmp_path / 'data', tmp_path / 'workdir'
  shutil.copytree(trained.dataset.directory, data)
  shutil.copytree(trained.workdir, workdir)

  def run(code):
    ended = main_command.run(
      *('--mode=audit', f'--config={ROOT}/configs/replay.py:{workdir}/config.json'),
      *(f'--workdir={workdir}', f'--config.data.dir={data}'),
    )
    assert ended.code == code
    return json.loads(ended.lines[-1]), ended.lines

  summary, lines = run(0)
  assert all(line.startswith('PASS  ') for line in lines[:-1])
  assert summary['passed'] and summary['checks'] == len(lines) - 1 and not summary['failed']
  written = json.loads((workdir / 'eval' / 'audit.json').read_text())
  assert len(written['checks']) == summary['checks'] and written['folds'] == [0]

  renamed(data, 'dischtime')
  spoiled, lines = run(1)
  assert spoiled['failed'] == ['inputs by name']
  # All checks are told, not only those before the failure.
  assert len(lines) - 1 == summary['checks']
  assert next(line for line in lines if line.startswith('FAIL')).endswith('(weight)')
