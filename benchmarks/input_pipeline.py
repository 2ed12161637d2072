"""Measures the input pipeline: samples per second, padding, compiled shapes, waiting.

  python -m benchmarks.input_pipeline

Simulates event histories with log-normal lengths, and ECG recordings for some of the
samples, prepares them like any source, and reads epochs of batches. Everything is
measured in one process, one after the other; every rate is the median of `--epochs`.
The last line on stdout is one JSON object:

  samples_per_s        event-only batches, planning and start included
  padding_efficiency   events in these batches / places for events
  cpu_us_per_sample    processor time, which other processes disturb less
  compiled_shapes      traces of the training step of the small model's stage `labs`
  buckets              padded lengths that occurred in these steps
  data_wait_share      share of an epoch of that stage in which the device has no work
  ms_per_step          of that epoch
  growth               reading with 1, 2 and 4 times the samples
  with_ecg             data sets with 1 and 4 recordings per sample; stages that read them
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs import cvd
from data_pipeline.format.dataset import Dataset, open_dataset
from data_pipeline.format.modalities import Events, Waveform
from data_pipeline.format.modalities.waveform import ECG_LEADS, ECG_MEASUREMENTS
from data_pipeline.format.schema import Item, Schema, Target
from data_pipeline.preparation import build
from data_pipeline.reading import input_pipeline, planning
from data_pipeline.sources import Staged
from medm2t_jax import experiment
from medm2t_jax.experiment import Experiment
from medm2t_jax.runs.run import Run
from medm2t_jax.training import steps as training_steps
from medm2t_jax.training import train

_ITEMS = 50
_RAW_RECORDINGS = 64
_TERMS = tuple(f'term {i}' for i in range(20))


def main() -> None:
  """Simulates the data sets, measures the input pipeline and prints JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--samples', type=int, default=20_000)
  parser.add_argument('--samples_with_ecg', type=int, default=4_000)
  parser.add_argument('--mean_events', type=int, default=300)
  parser.add_argument('--most_events', type=int, default=4_000)
  parser.add_argument('--sigma', type=float, default=1.0, help='of the log length')
  parser.add_argument('--shortest_bucket', type=int, default=128)
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--epochs', type=int, default=5)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    print(json.dumps(_measure(options, Path(folder))))


def doubling(shortest: int, longest: int) -> list[int]:
  """Padded lengths: `shortest`, then twice that, until `longest` fits.

  For a given number of buckets, hardly any choice pads less if log lengths are distributed
  evenly or normally: a sample fills at least half of its bucket.
  """
  lengths = [shortest]
  while lengths[-1] < longest:
    lengths.append(2 * lengths[-1])
  return lengths


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
  config = _config(options)
  growth: dict[int, dict[str, float]] = {}
  for times in (1, 2, 4):
    dataset = _prepare(folder / f'x{times}', times * options.samples, options)
    growth[times] = _read(dataset, ('labs',), config, options)
  trained = _train(dataset, 'labs', config, folder)
  with_ecg: dict[str, Any] = {}
  for recordings in (1, 4):
    dataset = _prepare(
      folder / f'ecg{recordings}', options.samples_with_ecg, options, recordings
    )
    with_ecg[f'{recordings}_per_sample'] = {
      'events_only': _read(dataset, ('labs',), config, options),
      'all': _read(dataset, dataset.schema.names, config, options),
    }
    if recordings == 1:
      for stage in ('ecg_signal', 'multimodal'):
        with_ecg[stage] = _train(dataset, stage, config, folder)
  return {**growth[1], **trained, 'growth': growth, 'with_ecg': with_ecg}


def _config(options: argparse.Namespace) -> Experiment:
  """The small CVD experiment with separate stages and buckets that double."""
  config = cvd.get_config('small')
  with config.unlocked():
    config.data.buckets = tuple(
      {'labs': length} for length in doubling(options.shortest_bucket, options.most_events)
    )
    for recipe in config.recipe.values():
      recipe.batch_size = options.batch_size
      recipe.starts_from = ()
  return experiment.read(config)


def _read(
  dataset: Dataset,
  modalities: Sequence[str],
  config: Experiment,
  options: argparse.Namespace,
) -> dict[str, float]:
  """Plans and reads epochs over all samples."""
  rates, real, places = [], 0, 0
  cpu = time.process_time()
  for epoch in range(options.epochs):
    start = time.perf_counter()
    plan = planning.plan_epoch(
      dataset,
      np.arange(len(dataset)),
      modalities=modalities,
      batching=config.data,
      batch_rows=options.batch_size,
      shuffle=(0, epoch),
    )
    samples = 0
    for batch in input_pipeline.batches(
      dataset, plan, modalities=modalities, batching=config.data
    ):
      samples += int((batch['row'] >= 0).sum())
      real += int(batch['labs']['mask'].sum())
      places += batch['labs']['mask'].size
    rates.append(samples / (time.perf_counter() - start))
    assert samples == len(dataset)
  result = {
    'samples_per_s': round(statistics.median(rates)),
    'cpu_us_per_sample': round(
      1e6 * (time.process_time() - cpu) / (options.epochs * len(dataset))
    ),
    'padding_efficiency': round(real / places, 3),
  }
  _say(f'{dataset.directory.name}, {", ".join(modalities)}: {result}')
  return result


def _train(
  dataset: Dataset, stage: str, config: Experiment, folder: Path
) -> dict[str, float]:
  """Trains a stage normally; measures the last of three epochs, as the first compiles."""
  config = config.changed({f'recipe.{stage}.epochs': 3, f'recipe.{stage}.patience': 3})
  directory = folder / f'{dataset.directory.name}-{stage}'
  fold = Run(config, dataset, 0, directory)
  traces = 0
  make_step = training_steps.train_step

  def counted(model: Any, stage: str, optimizer: Any, loss: Any, *rest: Any) -> Any:
    def traced(*arguments: Any) -> Any:
      nonlocal traces
      traces += 1  # Python runs this only when the step is traced.
      return loss.each(*arguments)

    counting = dataclasses.replace(loss, each=traced)
    return make_step(model, stage, optimizer, counting, *rest)

  with mock.patch.object(training_steps, 'train_step', counted):
    train.train_stage(fold, stage)
  record = fold.record(stage)
  assert record is not None
  used: set[int] = set()
  steps = 0
  for epoch in range(3):
    plan = fold.plan(
      'train',
      fold.modalities_of(stage),
      config.recipe[stage].batch_size,
      require=fold.model_config.stages[stage].modality,
      shuffle=(config.seed, epoch),
    )
    used.update(plan.bucket.tolist())
    steps = len(plan)
  last = record.history[-1]
  result = {
    'compiled_shapes': traces,
    'buckets': len(used),
    'data_wait_share': round(last['data_wait_share'], 4),
    'ms_per_step': round(1000 * last['seconds'] / steps, 1),
  }
  _say(f'{dataset.directory.name}, stage {stage}: {result}')
  return result


def _prepare(
  out: Path, samples: int, options: argparse.Namespace, recordings: int = 0
) -> Dataset:
  """A data set of random samples with `recordings` ECGs each on average."""
  start = time.perf_counter()
  schema = Schema(
    task='cvd',
    source='benchmark',
    target=Target('multiclass', ('non-CVD', 'CHD', 'stroke', 'HF')),
    modalities={
      'labs': Events(tuple(Item(f'{i}', f'item {i}') for i in range(_ITEMS))),
      **({'ecg': Waveform(_TERMS)} if recordings else {}),
    },
    attributes=(),
    observation_hours=None,
  )

  def stage(folder: Path) -> Staged:
    rng = np.random.default_rng(0)
    tables = {
      'samples': _samples(samples, rng),
      'events_labs': _events(samples, rng, options),
    }
    if recordings:
      tables['recordings'] = _recordings(folder, samples, recordings, rng)
    for name, columns in tables.items():
      pq.write_table(pa.table(columns), folder / f'{name}.parquet')
    return Staged(schema, {'steps': [], 'rows': {}}, {})

  request = {'source': 'benchmark', 'samples_per_shard': 1024}
  build.build(stage, out, request=request, memory_limit='4GB', workers=2)
  _say(f'{out.name}: prepared in {time.perf_counter() - start:.0f} s')
  return open_dataset(out)


def _samples(samples: int, rng: np.random.Generator) -> dict[str, Any]:
  return {
    'sample_id': np.arange(samples),
    'subject_id': np.arange(samples),
    'prediction_time': np.full(samples, np.datetime64('2150-01-01', 'us')),
    'label': rng.integers(0, 4, samples).astype(float),
  }


def _events(
  samples: int, rng: np.random.Generator, options: argparse.Namespace
) -> dict[str, Any]:
  mu = np.log(options.mean_events) - options.sigma**2 / 2
  lengths = rng.lognormal(mu, options.sigma, samples).round()
  lengths = lengths.clip(1, options.most_events).astype(int)
  count = lengths.sum()
  return {
    'sample_id': np.repeat(np.arange(samples), lengths),
    'item': rng.integers(0, _ITEMS, count, dtype=np.int32),
    'value': rng.normal(size=count).astype(np.float32),
    'category': np.full(count, -1, np.int32),
    'time': -rng.exponential(1000, count).astype(np.float32),
  }


def _recordings(
  folder: Path, samples: int, mean: float, rng: np.random.Generator
) -> dict[str, Any]:
  """Poisson counts; there are few shared raw files, but each record holds a copy."""
  paths = list(_raw_recordings(folder / 'raw', rng))
  counts = rng.poisson(mean, samples)
  total = counts.sum()
  terms = [rng.choice(len(_TERMS), 2, replace=False).tolist() for _ in range(total)]
  return {
    'sample_id': np.repeat(np.arange(samples), counts),
    'study_id': np.arange(total),
    'path': [paths[i] for i in rng.integers(0, len(paths), total)],
    'time': -rng.exponential(1000, total).astype(np.float32),
    **{name: rng.normal(400, 50, total) for name in ECG_MEASUREMENTS},
    'terms': pa.array(terms, pa.list_(pa.int32())),
  }


def _raw_recordings(folder: Path, rng: np.random.Generator) -> Iterator[str]:
  """Format 16 records of 10 s at 500 Hz."""
  folder.mkdir()
  for number in range(_RAW_RECORDINGS):
    path = folder / f'r{number}'
    phase = 2 * np.pi * rng.uniform(1, 8, 12) * np.arange(5000)[:, None] / 500
    signal = (200 * np.sin(phase)).round().astype('<i2')
    path.with_suffix('.dat').write_bytes(signal.tobytes())
    sums = signal.sum(0, np.int64).astype(np.int16)
    lines = [f'{path.name} 12 500 5000']
    for lead, first, total in zip(ECG_LEADS, signal[0], sums, strict=True):
      lines.append(f'{path.name}.dat 16 200.0(0)/mV 16 0 {first} {total} 0 {lead}')
    path.with_suffix('.hea').write_text('\n'.join(lines) + '\n')
    yield str(path)


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
  main()
