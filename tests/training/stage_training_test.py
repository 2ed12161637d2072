"""One small stage: how its best epoch is chosen, whom it reads, how it stops."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn import metrics

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError, Target
from data_pipeline.format.subjects import hash_subject
from medm2t_jax.experiment import read
from medm2t_jax.models import medm2t
from medm2t_jax.runs import checkpoint, workdir
from medm2t_jax.runs.hosts import devices
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.training import selection, stage_training, train
from tests.support import compiled_steps, static_data
from tests.support.batches import batches_of

# Coroutines that orbax leaves of a restore that failed.
pytestmark = [
  pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
  pytest.mark.filterwarnings('ignore:coroutine .* was never awaited'),
]


def experiment(data, **recipe):
  chosen = {'batch_size': 8, 'epochs': 4, 'select_by': 'auroc', 'learning_rate': 1e-2}
  return read(static_data.config(data, **(chosen | recipe)))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  return open_dataset(static_data.build(tmp_path_factory.mktemp('data')))


@pytest.fixture(scope='module')
def trained(dataset, tmp_path_factory):
  fold = Run(experiment(dataset.directory), dataset, 0, tmp_path_factory.mktemp('workdir'))
  train.train_stage(fold, 'static')
  return fold


def test_the_best_epoch_is_chosen_by_the_metric(trained):
  record = trained.record('static')
  found = [epoch['validation_auroc'] for epoch in record.history]
  losses = [epoch['validation_loss'] for epoch in record.history]
  assert np.argmax(found) != np.argmin(losses), 'else this shows nothing'
  assert found[record.best_epoch - 1] == max(found)
  # The same metric from the restored parameters, one batch after the other.
  variables, _ = restore_best(trained, 'static')
  model = medm2t.MedM2T(trained.model_config)
  apply = jax.jit(lambda batch: model.apply(variables, batch, stage='static', train=False))
  labels, probabilities = [], []
  for batch in batches_of(trained, 'validation', ('static',), 8):
    for device in range(len(batch['row'])):
      one = jax.tree.map(lambda array, device=device: array[device], batch)
      logits = apply(one).logits
      valid = one['row'] >= 0
      labels.extend(one['label'][valid])
      probabilities.extend(np.asarray(jax.nn.softmax(logits))[valid])
  expected = metrics.roc_auc_score(labels, np.array(probabilities)[:, 1])
  np.testing.assert_allclose(max(found), expected, rtol=1e-6)


def test_an_undefined_metric_is_one_clear_error():
  logits, label = np.zeros((3, 4), np.float32), np.array([0.0, 1.0, 2.0])
  target = Target('multiclass', tuple('abcd'))
  with pytest.raises(DataError, match=r"a class has none .* of the 3 .*'loss'"):
    selection.value('auroc', logits, label, np.ones(len(label)), target, 'static')


def test_absurd_values_of_test_subjects_change_no_bit(trained, dataset, tmp_path):
  """Neither their records nor their labels and counts in the index matter."""
  copy = tmp_path / 'copy'
  shutil.copytree(dataset.directory, copy)
  rows = dataset.rows(0, 'test')
  for row in rows:
    with (copy / dataset.files[dataset.index['file'][row]]).open('r+b') as shard:
      shard.seek(int(dataset.index['offset'][row]))
      shard.write(b'\xff' * int(dataset.index['bytes'][row]))
  absurd = dataclasses.replace(
    open_dataset(copy),
    index={
      name: np.where(np.isin(np.arange(len(column)), rows), 10**6, column).astype(
        column.dtype
      )
      if name == 'label' or name.startswith('n_')
      else column
      for name, column in dataset.index.items()
    },
  )
  fold = Run(experiment(dataset.directory), absurd, 0, tmp_path)
  batches = [batches_of(one, 'train', ('static',), 16) for one in (trained, fold)]
  for expected, found in zip(*batches, strict=True):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
  train.train_stage(fold, 'static')
  expected, found = (restore_best(one, 'static')[0] for one in (trained, fold))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_folds_and_seeds_compile_their_steps_once(trained, tmp_path):
  config = experiment(trained.dataset.directory).changed({'seed': 1})
  with compiled_steps.counted() as compiled:
    train.train_stage(Run(config, trained.dataset, 1, tmp_path), 'static')
  assert not compiled


def test_training_does_not_go_on_from_another_folds_checkpoint(trained, tmp_path):
  shutil.copytree(trained.workdir / 'fold0', tmp_path / 'fold1')
  (tmp_path / 'fold1' / 'static' / 'done.json').unlink()
  fold = Run(trained.config, trained.dataset, 1, tmp_path)
  with pytest.raises(DataError, match=r'fitted on .* of fold 1 \(it belongs to fold 0\)'):
    train.train_stage(fold, 'static')


def test_a_damaged_best_checkpoint_is_one_clear_error(trained, tmp_path):
  shutil.copytree(trained.workdir / 'fold0', tmp_path / 'fold0')
  fold = Run(trained.config, trained.dataset, 0, tmp_path)
  directory = workdir.checkpoint_directory(tmp_path, 0, 'static')
  record = fold.record('static')
  assert record is not None
  best = directory / str(record.best_step)
  for file in (best / 'params' / 'd').iterdir():
    file.write_bytes(file.read_bytes()[:10])
  with pytest.raises(DataError, match=f'{best}/params.*delete {directory.parent}'):
    restore_best(fold, 'static')


def test_a_loss_that_is_not_finite_names_its_batch(dataset, tmp_path, monkeypatch):
  fold = Run(experiment(dataset.directory), dataset, 0, tmp_path)
  read = Reader.read
  poisoned = []

  def read_poisoned(self, plan, modalities, start_step=0):
    for number, batch in enumerate(read(self, plan, modalities, start_step), 1):
      rows = batch['row'][batch['row'] >= 0]
      if number == 3 and rows[0] in dataset.rows(0, 'train'):
        batch['static']['numeric'] = np.full_like(batch['static']['numeric'], np.inf)
        poisoned.append(rows)
      yield batch

  monkeypatch.setattr(Reader, 'read', read_poisoned)
  with pytest.raises(stage_training.TrainingError) as raised:
    train.train_stage(fold, 'static')
  message = str(raised.value)
  assert 'stage static' in message and 'step 3 of epoch 1' in message
  samples = dataset.index['sample_id'][poisoned[0]]
  hashes = {hash_subject(sample, dataset.subject_key) for sample in samples}
  assert set(message.split('hashes ')[1].split('. ')[0].split(', ')) == hashes
  # What was lost is not saved.
  with checkpoint.Checkpoints(tmp_path / 'fold0' / 'static' / 'checkpoints') as saved:
    assert saved.latest_step is None


def test_batches_are_rounded_up_until_the_devices_divide_them(dataset, tmp_path, caplog):
  config = experiment(dataset.directory, batch_size=12, epochs=1)
  rounded = Run(config, dataset, 0, tmp_path / 'rounded')
  with caplog.at_level('INFO'):
    train.train_stage(rounded, 'static')
  assert '16 samples a step instead of 12' in caplog.text
  config = experiment(dataset.directory, batch_size=16, epochs=1)
  exact = Run(config, dataset, 0, tmp_path / 'exact')
  train.train_stage(exact, 'static')
  losses = [
    [run.require_record('static').history[0][f'{split}_loss'] for run in (rounded, exact)]
    for split in ('train', 'validation')
  ]
  assert all(first == second for first, second in losses)


def test_a_stage_does_not_go_on_with_batches_of_another_size(trained, dataset, tmp_path):
  shutil.copytree(trained.workdir / 'fold0', tmp_path / 'fold0')
  (tmp_path / 'fold0/static/done.json').unlink()
  longer = Run(experiment(dataset.directory, batch_size=12), dataset, 0, tmp_path)
  with pytest.raises(stage_training.TrainingError, match='8 samples a step, and 8 devices'):
    train.train_stage(longer, 'static')


MAPPINGS = Path('/proc/self/maps')


# The last test: what the others have compiled is gone after it.
@pytest.mark.skipif(not MAPPINGS.exists(), reason='only Linux tells its mappings')
def test_where_there_are_many_programs_a_finished_stage_leaves_none(
  dataset, tmp_path, monkeypatch
):
  monkeypatch.setattr(devices, '_MOST_MAPPINGS', 0)
  devices.release_programs()
  mappings = lambda: len(MAPPINGS.read_text().splitlines())
  before = mappings()
  config = experiment(dataset.directory).changed({'recipe.static.epochs': 1})
  train.train_stage(Run(config, dataset, 0, tmp_path), 'static')
  assert mappings() - before < 100  # the stage's programs are some 400
