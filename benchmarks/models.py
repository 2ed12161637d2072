"""Compares our model with a plain PyTorch one: throughput, latency, memory, start-up.

  python -m benchmarks.models                                  # all, about 15 minutes
  python -m benchmarks.models --only=mortality/multimodal,ste  # some of it
  python -m benchmarks.models --parts=latency,memory
  python -m benchmarks.models --parts=throughput,rows --times=10   # on a GPU

The model and recipe are the defaults of a config file: item statistics, and an ensemble
trunk beside the encoders, added late; the multimodal stage trains on frozen encoders and
adds the predictions of its modalities' stages. Both sides compute the same from the same
weights and inputs (logits are compared first, to 1e-4), in one process, with the same
number of threads, in turns; the numbers are medians. With a GPU both use it, and
`--precision` says how float32 matrices are multiplied: with TF32, JAX's default, or
without (logits are compared to 1e-2 and 1e-4). Ratios are samples per second, ours divided
by PyTorch's: above 1, ours is faster. `ste` is only the window vectors of the events.
`peak_share` is the share of this machine's measured matmul peak that our train step
reaches (XLA counts the FLOPs). `rows` is only our model, with larger batches, in float32
and bfloat16. `--times=10` dispatches ten steps before it waits for them, as training does;
`--compile` adds PyTorch with `torch.compile`. The last line on stdout is one JSON object.
Packages that prepare and read data (DuckDB, TensorFlow) are not needed.

`--allocator` is described in `benchmarks/in_turns.py`. On a busy machine,
`taskset -c 0 ... --clock=cpu` measures the work on one core instead.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import torch

from benchmarks import model_workload
from benchmarks.in_turns import Work, add_flags, in_turns, keep_memory, rounded, say
from benchmarks.model_case import Case, Ours, drawn
from benchmarks.model_steps import (
  PRECISIONS,
  Theirs,
  both,
  embedding,
  fitted_of,
  use_precision,
)
from data_pipeline import processors

_PARTS = ('throughput', 'rows', 'latency', 'memory', 'start')
_TASKS = ('mortality', 'cvd', 'los')
_ROWS = (64, 256, 1024)
_PEAK_SIZES = {'cpu': 2048, 'gpu': 8192}


def main() -> None:
  """Times our model and the PyTorch one in turns, and prints the ratios as JSON."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', default='', help='prefixes of names, comma-separated')
  parser.add_argument('--parts', default=','.join(_PARTS), help=f'of {_PARTS}')
  add_flags(parser, repetitions=7, seconds=20)
  parser.add_argument(
    '--size', choices=('tiny', 'small', 'paper'), default='paper', help='of throughput'
  )
  parser.add_argument('--precision', choices=PRECISIONS, default=PRECISIONS[0])
  parser.add_argument('--times', type=int, default=1, help='steps of one repetition')
  parser.add_argument('--compile', action='store_true', help='torch.compile, too')
  parser.add_argument('--first_step', help='only time the first step of TASK/STAGE')
  options = parser.parse_args()
  keep_memory(options, 'benchmarks.models', sys.argv[1:])
  if options.first_step:
    print(json.dumps(_first_step(*options.first_step.split('/'))))
    return
  use_precision(options.precision)
  threads = processors.available()
  torch.set_num_threads(threads)
  parts = options.parts.split(',')
  if unknown := set(parts) - set(_PARTS):
    parser.error(f'unknown parts {sorted(unknown)}; there are {_PARTS}')
  prefixes = tuple(options.only.split(','))
  chosen = lambda name: name.startswith(prefixes)
  result: dict[str, Any] = {
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'torch': torch.__version__,
    'precision': options.precision,
    'threads': threads,
    'allocator': options.allocator,
  }
  if 'throughput' in parts:
    for name, task, stage in _names():
      if chosen(name):
        result[name] = _throughput(task, stage, options)
        say(name, result[name])
    if chosen('ste'):
      result['ste'] = _ste(options)
      say('ste', result['ste'])
  measures = {'rows': _rows, 'latency': _latency, 'memory': _memory, 'start': _start}
  for part, measure in measures.items():
    for task in _TASKS if part in parts else ():
      if chosen(f'{task}/multimodal'):
        result.setdefault(part, {})[task] = measure(task, options)
        say(f'{part} {task}', result[part][task])
  print(json.dumps(result))


def _names() -> list[tuple[str, str, str]]:
  """Name, task and stage of all comparisons, without LOS, which is similar to mortality."""
  found = []
  for task in _TASKS:
    every = tuple(Case(task, 'multimodal').config.stages)
    ordered = ['multimodal', *every[:-1]] if task != 'los' else ['multimodal']
    found += [(f'{task}/{stage}', task, stage) for stage in ordered]
  return found


def _throughput(task: str, stage: str, options: argparse.Namespace) -> dict[str, float]:
  case = Case(task, stage, options.size, rows=model_workload.rows_of(stage))
  ours, theirs = both(case)
  sides: dict[str, Any] = {'ours': ours, 'torch': theirs}
  if options.compile:
    sides['compiled'] = Theirs(case, fitted_of(case), compiled=True)
  size = _PEAK_SIZES[jax.default_backend()]
  work: dict[str, Work] = {'peak': _matmul(size)}
  for name, side in sides.items():
    work[f'{name}_train'] = functools.partial(side.train, options.times)
    work[f'{name}_inference'] = functools.partial(side.infer, options.times)
  times = in_turns(work, options)
  peak = 2 * size**3 / times.pop('peak')
  times = {name: seconds / options.times for name, seconds in times.items()}
  flops = ours.compiled.cost_analysis()['flops']
  row = {
    'train_vs_torch': times['torch_train'] / times['ours_train'],
    'inference_vs_torch': times['torch_inference'] / times['ours_inference'],
    'peak_share': flops / times['ours_train'] / peak,
    'train_gflop': flops / 1e9,
    'peak_gflop_per_second': peak / 1e9,
  }
  return rounded(row | _milliseconds(times))


def _rows(task: str, options: argparse.Namespace) -> dict[str, Any]:
  """Our samples per second and seconds to compile the train step, by rows and dtype."""
  row = {}
  for dtype in ('float32', 'bfloat16'):
    for rows in _ROWS:
      case = Case(task, 'multimodal', rows=rows, dtype=dtype)
      ours = Ours(case, drawn(case))
      start = time.perf_counter()
      found = {'megabytes': ours.compiled.memory_analysis().temp_size_in_bytes / 1e6}
      found['compile_seconds'] = time.perf_counter() - start
      times = in_turns(
        {
          'train': functools.partial(ours.train, options.times),
          'inference': functools.partial(ours.infer, options.times),
        },
        options,
      )
      of_all = rows * options.times
      found |= {f'{name}_per_second': of_all / each for name, each in times.items()}
      row[f'{dtype}, {rows}'] = rounded(found)
      say(f'{task} {dtype}, {rows}', row[f'{dtype}, {rows}'])
  return row


def _ste(options: argparse.Namespace) -> dict[str, float]:
  """Only the item statistics and window vectors of the labs stage of mortality."""
  case = Case('mortality', 'labs', rows=model_workload.rows_of('labs'))
  (train, infer), (their_train, their_infer) = embedding(case)
  times = in_turns(
    {
      'ours_train': train,
      'torch_train': their_train,
      'ours_inference': infer,
      'torch_inference': their_infer,
    },
    options,
  )
  return rounded(
    {
      'train_vs_torch': times['torch_train'] / times['ours_train'],
      'inference_vs_torch': times['torch_inference'] / times['ours_inference'],
    }
    | _milliseconds(times)
  )


def _latency(task: str, options: argparse.Namespace) -> dict[str, float]:
  """Milliseconds for one patient who has all modalities."""
  row = {}
  for size in ('paper', 'small'):
    case = Case(task, 'multimodal', size=size, rows=1, capacity=1.0)
    ours, theirs = both(case)
    times = in_turns({f'ours_{size}': ours.infer, f'torch_{size}': theirs.infer}, options)
    row |= _milliseconds(times)
  return rounded(row)


def _memory(task: str, options: argparse.Namespace) -> dict[str, float]:
  """Memory of a train step in MB: state and batch, and temporary buffers."""
  del options
  row = {}
  variants = {'32 rows': (32, 1.0), '64 rows': (64, 1.0), '32 rows, 4x events': (32, 4.0)}
  for name, (rows, events) in variants.items():
    sizes = Ours(Case(task, 'multimodal', rows=rows, events=events)).compiled
    found = sizes.memory_analysis()
    row[f'{name}: state'] = found.argument_size_in_bytes / 1e6
    row[f'{name}: temporary'] = found.temp_size_in_bytes / 1e6
    row[f'{name}: not donated'] = (
      found.output_size_in_bytes - found.alias_size_in_bytes
    ) / 1e6
  return rounded(row)


def _start(task: str, options: argparse.Namespace) -> dict[str, float]:
  """Seconds to the end of the first train step, without and with a compilation cache."""
  with tempfile.TemporaryDirectory() as cache:
    environment = os.environ | {
      'JAX_COMPILATION_CACHE_DIR': cache,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    row = {}
    for name in ('cold', 'cached'):
      done = subprocess.run(
        [
          *(sys.executable, '-m', 'benchmarks.models'),
          f'--allocator={options.allocator}',
          f'--first_step={task}/multimodal',
        ],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
      )
      row[name] = json.loads(done.stdout.splitlines()[-1])
  return row


def _first_step(task: str, stage: str) -> float:
  """Seconds to initialise, compile and make one update, after imports."""
  start = time.perf_counter()
  Ours(Case(task, stage)).train()
  return round(time.perf_counter() - start, 2)


def _matmul(size: int) -> Work:
  square = jax.random.normal(jax.random.key(0), (size, size))
  product = jax.jit(jax.numpy.dot)
  return lambda: product(square, square).block_until_ready()


def _milliseconds(times: dict[str, float]) -> dict[str, float]:
  return {f'{name}_ms': 1000 * seconds for name, seconds in times.items()}


if __name__ == '__main__':
  main()
