"""Times training and inference of our small model and of a PyTorch GRU of equal width.

  python -m benchmarks.beside_gru --data=data/physionet2012-mortality [--repetitions=5]

On fold 0 of PhysioNet 2012: one epoch over the training stays in batches of 32, and the
predictions of 1,000 stays in batches of 128, alternating in one process with the same
number of threads; medians. The GRU (one layer, width 64, Adam) reads hourly means, masks
and time gaps from memory, as the baseline of the report does. Our model reads the records
from disk in every epoch, as in training. Ratios are the GRU's time divided by ours: above
1, ours is faster. Compilation is not included. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from configs import physionet2012
from data_pipeline import processors
from data_pipeline.format.dataset import open_dataset
from medm2t_jax import experiment
from medm2t_jax.baselines.gru import standardised, with_gaps
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.baselines.windows import window_ends
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.run import Run
from medm2t_jax.training import steps as training_steps
from medm2t_jax.training.losses import make_loss
from medm2t_jax.training.stage_training import (
  first_epoch,
  initial_state,
  optimizer_of,
)

_STAGES = ('events', 'vitals', 'multimodal')
_WIDTH = 64
_BATCH = 32
_LEARNING_RATE = 1e-3


def main() -> None:
  """Times our stages and the GRU in turns, and prints the medians as JSON."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='folder of the prepared data set')
  parser.add_argument('--repetitions', type=int, default=5)
  options = parser.parse_args()
  threads = processors.available()
  torch.set_num_threads(threads)
  fold = _fold(options.data)
  sides = {'gru': _Gru(fold)} | {stage: _Ours(fold, stage) for stage in _STAGES}
  times: dict[str, dict[str, list[float]]] = {
    name: {'epoch': [], 'inference': []} for name in sides
  }
  for repetition in range(options.repetitions + 1):
    for name, side in sides.items():
      for what, work in (('epoch', side.epoch), ('inference', side.inference)):
        seconds = _seconds(work)
        if repetition:  # the first compiles
          times[name][what].append(seconds)
        print(f'{name} {what}: {seconds:.2f} s', file=sys.stderr)
  training = len(fold.splits.rows('train'))
  test = len(fold.splits.rows('test'))
  median = {
    name: {
      's_per_epoch': statistics.median(each['epoch']),
      's_per_1000_stays': statistics.median(each['inference']) * 1000 / test,
    }
    for name, each in times.items()
  }
  result = {
    name: {
      **{key: round(seconds, 3) for key, seconds in each.items()},
      'epoch_ratio': round(median['gru']['s_per_epoch'] / each['s_per_epoch'], 2),
      'inference_ratio': round(
        median['gru']['s_per_1000_stays'] / each['s_per_1000_stays'], 2
      ),
    }
    for name, each in median.items()
  }
  print(json.dumps({'threads': threads, 'training_stays': training, **result}))


def _seconds(work: Callable[[], None]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def _fold(directory: str) -> Run:
  config = physionet2012.get_config()
  with config.unlocked():
    config.data.dir = directory
    for recipe in config.recipe.values():
      recipe.starts_from = ()  # no earlier stage is trained here
      recipe.batch_size = _BATCH
  return Run(experiment.read(config), open_dataset(Path(directory)), 0, Path('unused'))


class _Ours:
  """A stage of our model, with the input pipeline."""

  def __init__(self, fold: Run, stage: str):
    self._fold, self._stage = fold, stage
    recipe = fold.config.recipe[stage]
    steps = len(first_epoch(fold, stage))
    optimizer = optimizer_of(fold, stage, steps)
    loss = make_loss(recipe, fold.dataset.schema.target)
    self._state, _ = initial_state(fold, stage, optimizer)
    self._key = initial.key(fold, stage)
    self._step = training_steps.train_step(
      fold.model, stage, optimizer, loss, recipe.frozen
    )

  def epoch(self) -> None:
    fold, stage = self._fold, self._stage
    modalities = fold.modalities_of(stage)
    plan = fold.plan('train', modalities, _BATCH, shuffle=(0, 0))
    for batch in fold.reader.read(plan, modalities):
      self._state, _ = self._step(self._state, batch, self._key)
    jax.block_until_ready(self._state)

  def inference(self) -> None:
    fold, stage = self._fold, self._stage
    modalities = fold.modalities_of(stage)
    predictor = training_steps.predictor(fold.model, stage, self._state.variables)
    size = fold.config.evaluation.batch_size
    for batch in fold.reader.read(fold.plan('test', modalities, size), modalities):
      np.asarray(predictor(batch))


class _Network(nn.Module):
  def __init__(self, inputs: int, static: int):
    super().__init__()
    self.gru = nn.GRU(inputs, _WIDTH, batch_first=True)
    self.head = nn.Sequential(
      nn.Dropout(0.3), nn.Linear(_WIDTH + static, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 2)
    )

  def forward(self, windows: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
    _, last = self.gru(windows)
    return self.head(torch.cat([last[0], static], dim=1))


class _Gru:
  """The GRU in PyTorch, on arrays in memory."""

  def __init__(self, fold: Run):
    inputs = Inputs(fold)
    ends = window_ends(inputs.schema.observation_hours).astype(np.float32)
    self._arrays = {
      split: (
        torch.tensor(np.array(with_gaps(jnp.asarray(samples.windows), ends))),
        torch.tensor(np.nan_to_num(samples.columns)),
        torch.tensor(samples.label.astype(np.int64)),
      )
      for split, samples in standardised(inputs).items()
    }
    windows, static, _ = self._arrays['train']
    self._network = _Network(windows.shape[2], static.shape[1])
    self._optimizer = torch.optim.Adam(self._network.parameters(), _LEARNING_RATE)
    self._test_batch = fold.config.evaluation.batch_size

  def epoch(self) -> None:
    windows, static, label = self._arrays['train']
    self._network.train()
    for chosen in torch.randperm(len(label)).split(_BATCH):
      self._optimizer.zero_grad()
      logits = self._network(windows[chosen], static[chosen])
      nn.functional.cross_entropy(logits, label[chosen]).backward()
      self._optimizer.step()

  def inference(self) -> None:
    self._network.eval()
    windows, static, _ = self._arrays['test']
    with torch.inference_mode():
      for part in zip(
        windows.split(self._test_batch), static.split(self._test_batch), strict=True
      ):
        self._network(*part).numpy()


if __name__ == '__main__':
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  main()
