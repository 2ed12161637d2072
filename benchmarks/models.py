"""Our model against a plain PyTorch one: throughput, latency, memory, time to start.

  python -m benchmarks.models                                  # all, about 15 minutes
  python -m benchmarks.models --only=mortality/multimodal,ste  # some of it
  python -m benchmarks.models --parts=latency,memory

Both sides compute the same corrected model from the same weights and inputs (logits are
compared first, to 1e-4), in one process, with the same number of threads, in turns; the
figures are medians. Ratios are samples a second, ours over PyTorch: above 1, ours is
faster. `published_*` is PyTorch in the published form, in which the pairs read summary
vectors only and the rows of a batch attend to one another. `peak_share` is the share of
this machine's measured matmul peak that our train step reaches (XLA counts the FLOPs; it
counts the body of a loop once, so recurrent steps are missing). The last line on stdout
is one JSON object.

XLA on a CPU takes one large temporary buffer per call, which the C library maps anew each
time, page by page. `--allocator=keep` (default; glibc only) starts this process anew with
GLIBC_TUNABLES that keep freed memory, for both frameworks; `--allocator=default` does not.

On a busy machine, `taskset -c 0 ... --clock=cpu` measures the work on one core instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch

from benchmarks import model_workload
from benchmarks.model_steps import Case, Ours, Theirs, both, embedding, fitted_of
from data_pipeline import processors
from medm2t_jax.models.medm2t import stages

_PARTS = ('throughput', 'latency', 'memory', 'start')
_TASKS = ('mortality', 'cvd', 'los')
_CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
_PEAK_SIZE = 2048
_KEEP_MEMORY = (
  'glibc.malloc.mmap_threshold=8000000000:glibc.malloc.trim_threshold=16000000000'
)
# Threads of one framework spin for a while after their work is done.
_REST_SECONDS = 0.03

Work = Callable[[], Any]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', default='', help='prefixes of names, comma-separated')
  parser.add_argument('--parts', default=','.join(_PARTS), help=f'of {_PARTS}')
  parser.add_argument('--repetitions', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=20, help='at most, per stage')
  parser.add_argument('--clock', choices=_CLOCKS, default='wall')
  parser.add_argument('--allocator', choices=('keep', 'default'), default='keep')
  parser.add_argument('--first_step', help='only time the first step of TASK/STAGE')
  options = parser.parse_args()
  if options.allocator == 'keep' and os.environ.get('GLIBC_TUNABLES') != _KEEP_MEMORY:
    # Read before main starts: only a new process can have them.
    environment = os.environ | {'GLIBC_TUNABLES': _KEEP_MEMORY}
    arguments = [sys.executable, '-m', 'benchmarks.models', *sys.argv[1:]]
    os.execve(sys.executable, arguments, environment)
  if options.first_step:
    print(json.dumps(_first_step(*options.first_step.split('/'))))
    return
  threads = processors.available()
  torch.set_num_threads(threads)
  parts = options.parts.split(',')
  if unknown := set(parts) - set(_PARTS):
    parser.error(f'unknown parts {sorted(unknown)}; there are {_PARTS}')
  prefixes = tuple(options.only.split(','))
  chosen = lambda name: name.startswith(prefixes)
  result: dict[str, Any] = {'threads': threads, 'allocator': options.allocator}
  if 'throughput' in parts:
    for name, task, stage in _names():
      if chosen(name):
        result[name] = _throughput(task, stage, options)
        _say(name, result[name])
    if chosen('ste'):
      result['ste'] = _ste(options)
      _say('ste', result['ste'])
  for part, measure in (('latency', _latency), ('memory', _memory), ('start', _start)):
    for task in _TASKS if part in parts else ():
      if chosen(f'{task}/multimodal'):
        result.setdefault(part, {})[task] = measure(task, options)
        _say(f'{part} {task}', result[part][task])
  print(json.dumps(result))


def _names() -> list[tuple[str, str, str]]:
  """Name, task and stage of all that is compared; LOS differs from mortality little."""
  found = []
  for task in _TASKS:
    every = stages(Case(task, 'multimodal').config)
    ordered = ['multimodal', *every[:-1]] if task != 'los' else ['multimodal']
    found += [(f'{task}/{stage}', task, stage) for stage in ordered]
  return found


def _throughput(task: str, stage: str, options: argparse.Namespace) -> dict[str, float]:
  case = Case(task, stage, rows=model_workload.rows_of(stage))
  ours, theirs = both(case)
  work: dict[str, Work] = {
    'ours_train': ours.train,
    'torch_train': theirs.train,
    'ours_inference': ours.infer,
    'torch_inference': theirs.infer,
    'peak': _matmul(),
  }
  if stage == 'multimodal':
    published = Theirs(case, fitted_of(case), 'summary')
    work |= {
      'published_train': published.train,
      'published_inference': published.infer,
    }
  times = _in_turns(work, options)
  flops = ours.compiled.cost_analysis()['flops']
  peak = 2 * _PEAK_SIZE**3 / times.pop('peak')
  row = {
    'train_vs_torch': times['torch_train'] / times['ours_train'],
    'inference_vs_torch': times['torch_inference'] / times['ours_inference'],
    'peak_share': flops / times['ours_train'] / peak,
    'train_gflop': flops / 1e9,
    'peak_gflop_per_second': peak / 1e9,
  }
  if stage == 'multimodal':
    for mode in ('train', 'inference'):
      row[f'{mode}_vs_published'] = times[f'published_{mode}'] / times[f'ours_{mode}']
  return _rounded(row | _milliseconds(times))


def _ste(options: argparse.Namespace) -> dict[str, float]:
  """Embedding and windows alone, of the labs stage of mortality."""
  case = Case('mortality', 'labs', rows=model_workload.rows_of('labs'))
  (train, infer), (their_train, their_infer) = embedding(case)
  times = _in_turns(
    {
      'ours_train': train,
      'torch_train': their_train,
      'ours_inference': infer,
      'torch_inference': their_infer,
    },
    options,
  )
  return _rounded(
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
    times = _in_turns({f'ours_{size}': ours.infer, f'torch_{size}': theirs.infer}, options)
    row |= _milliseconds(times)
  return _rounded(row)


def _memory(task: str, options: argparse.Namespace) -> dict[str, float]:
  """Bytes of a train step: state and batch, and what it needs beside them, in MB."""
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
  return _rounded(row)


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


def _in_turns(work: dict[str, Work], options: argparse.Namespace) -> dict[str, float]:
  """Median seconds of each, one repetition of all after the other."""
  clock = _CLOCKS[options.clock]
  for run in work.values():
    run()  # compiles, allocates the optimizer's state
  times: dict[str, list[float]] = {name: [] for name in work}
  end = time.perf_counter() + options.seconds
  for repetition in range(options.repetitions):
    # At least three, or the median is none.
    if repetition >= 3 and time.perf_counter() > end:
      break
    for name, run in work.items():
      time.sleep(_REST_SECONDS)
      start = clock()
      run()
      times[name].append(clock() - start)
  return {name: statistics.median(found) for name, found in times.items()}


def _matmul() -> Work:
  square = jnp.ones((_PEAK_SIZE, _PEAK_SIZE))
  product = jax.jit(jnp.dot)
  return lambda: product(square, square).block_until_ready()


def _milliseconds(times: dict[str, float]) -> dict[str, float]:
  return {f'{name}_ms': 1000 * seconds for name, seconds in times.items()}


def _rounded(row: dict[str, float]) -> dict[str, float]:
  return {name: float(f'{value:.4g}') for name, value in row.items()}


def _say(name: str, row: dict[str, float]) -> None:
  figures = '  '.join(f'{key} {value:g}' for key, value in row.items())
  print(f'{name}: {figures}', file=sys.stderr, flush=True)


if __name__ == '__main__':
  main()
