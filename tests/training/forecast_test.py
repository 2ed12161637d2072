"""What training will take is measured with its own steps, and said before it starts."""

from __future__ import annotations

import jax
import pytest

from data_pipeline.format.dataset import open_dataset
from medm2t_jax.experiment import read
from medm2t_jax.runs.hosts import preemption
from medm2t_jax.runs.run import Run
from medm2t_jax.training import forecast, train
from medm2t_jax.training.forecast import StageForecast
from medm2t_jax.training.stage_training import first_epoch, validation_pass
from tests.support import compiled_steps, static_data

EPOCHS = 3
STAGE = 'static'


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  return open_dataset(static_data.build(tmp_path_factory.mktemp('data')))


@pytest.fixture
def run(dataset, tmp_path, monkeypatch):
  monkeypatch.setattr(forecast, '_FEWEST_STEPS', 1)
  options = static_data.config(dataset.directory, batch_size=8, epochs=EPOCHS)
  return Run(read(options), dataset, 0, tmp_path)


def row_of(printed):
  (row,) = [line.split() for line in printed.splitlines() if line.startswith(STAGE)]
  return row


def test_the_time_is_that_of_all_steps_and_validations(run, monkeypatch, capsys):
  clock = [0.0]

  def taking(seconds):
    def step(state, *_):
      clock[0] += seconds
      return state, None

    return step

  monkeypatch.setattr(forecast, 'steps_of', lambda *_: (taking(0.25), taking(2.0)))
  monkeypatch.setattr(forecast.time, 'perf_counter', lambda: clock[0])
  forecast.announce({STAGE: [run, run]})
  steps, validations = len(first_epoch(run, STAGE)), len(validation_pass(run, STAGE))
  expected = forecast.duration(2 * EPOCHS * (0.25 * steps + 2 * validations))
  assert row_of(capsys.readouterr().err) == [
    STAGE, str(EPOCHS), str(2 * EPOCHS * steps), '250', 'ms', expected
  ]  # fmt: skip


def test_training_uses_the_programs_of_the_forecast(run, capsys):
  jax.clear_caches()
  with compiled_steps.counted() as compiled:
    forecast.announce({STAGE: [run]})
    assert 'cores' in capsys.readouterr().err
    assert len(compiled) == 3, 'training, prediction and the loss of validation'
    train.train_stage(run, STAGE)
    assert len(compiled) == 3


def test_only_what_is_left_is_forecast(run, capsys):
  train.train([run])
  assert row_of(capsys.readouterr().err)[:2] == [STAGE, str(EPOCHS)]
  train.train([run])
  assert 'what training will take' not in capsys.readouterr().err


def test_short_training_has_none(run, monkeypatch, capsys):
  steps = EPOCHS * len(first_epoch(run, STAGE))
  monkeypatch.setattr(forecast, '_FEWEST_STEPS', steps + 1)
  forecast.announce({STAGE: [run]})
  assert not capsys.readouterr().err


def test_sigterm_ends_it(run, monkeypatch):
  monkeypatch.setattr(preemption, 'requested', lambda: True)
  with pytest.raises(preemption.Preempted, match='before training'):
    forecast.announce({STAGE: [run]})


def test_a_long_run_is_told_of_the_short_variants():
  labs = StageForecast('labs', 12, 14_400, 0.4, 6000.0)
  text = forecast.text([labs, StageForecast('multimodal', 3, 360, 1.25, 456.0)])
  _, header, first, second, sums, hint = text.splitlines()
  assert header.split() == ['stage', 'epochs', 'steps', 'a', 'step', 'time']
  assert first.split() == ['labs', '12', '14,400', '400', 'ms', '1:40:00']
  assert second.split() == ['multimodal', '3', '360', '1,250', 'ms', '0:07:36']
  assert sums.startswith('1:47:36 in all') and sums.endswith('GB of memory so far')
  assert 'smoke' in hint
  assert 'smoke' not in forecast.text([StageForecast('labs', 1, 10, 0.1, 1.0)])
  assert '2 folds' in forecast.text([labs], side_by_side=2)
