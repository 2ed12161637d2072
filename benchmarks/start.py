"""Measures how a first and a second `./run.sh` spend their time.

  ./run.sh exec python -m benchmarks.start [--config=configs/...] [flags of medm2t_jax.main]

Runs the main job three times in a separate process, in an empty folder: cold (no compiled
programs), again (everything is complete) and warm (compiled programs but no results). By
default the job is that of `./run.sh`, with its XLA flags. The last line on stdout is one
JSON object: for each run the seconds of every phase, the rest as `start and rest`, the
number of programs compiled or loaded, the seconds that this took, and the longest of them.
Installation is not included.

  ./run.sh exec python -m benchmarks.start --first_step=configs/mortality.py:small

Seconds from the plan of the multimodal stage (300 simulated patients, after imports and
data) to the end of its first step, in a process without and in one with compiled programs.
Parameters that a run restores from earlier stages are given, without reading them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline import processors
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.hosts import devices
from medm2t_jax.runs.train_state import TrainState
from medm2t_jax.training import steps

_ROOT = Path(__file__).resolve().parents[1]
_JOB = f'--config={_ROOT}/configs/first.py'
_LONGEST = 12
_COMPILED = '/jax/core/compile/backend_compile_duration'
_TRACED = '/jax/core/compile/jaxpr_trace_duration'
_LOWERED = '/jax/core/compile/jaxpr_to_mlir_module_duration'
_LOADED = '/jax/compilation_cache/cache_hits'


def main() -> None:
  """Times cold, repeated and warm runs, or with `--first_step` the first step alone."""
  if sys.argv[1:2] == ['--measured']:
    _measured(Path(sys.argv[2]), sys.argv[3:])
    return
  if sys.argv[1:2] == ['--first_step_of']:
    _first_step(Path(sys.argv[2]), sys.argv[3])
    return
  if sys.argv[1:] and sys.argv[1].startswith('--first_step='):
    _first_steps(sys.argv[1].partition('=')[2])
    return
  flags = sys.argv[1:] or [_JOB]
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    for name in ('cold', 'again', 'warm'):
      if name == 'warm':
        subprocess.run(['rm', '-r', f'{folder}/runs', f'{folder}/data'], check=True)
      found[name] = _run(Path(folder), flags)
      print(f'{name}: {found[name]["seconds"]} s', file=sys.stderr)
  print(json.dumps({'flags': flags, 'cores': processors.available(), **found}))


def _child(folder: Path, *arguments: str) -> None:
  """Runs this module in another process, whose programs are kept in `folder`."""
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
    'PYTHONPATH': str(_ROOT),
  }
  if _JOB in arguments:
    found = re.search(r'XLA_FLAGS:-([^}]*)}', (_ROOT / 'run.sh').read_text())
    assert found
    environment.setdefault('XLA_FLAGS', found.group(1))
  subprocess.run(
    [sys.executable, '-m', 'benchmarks.start', *arguments],
    cwd=folder,
    env=environment,
    stdout=subprocess.DEVNULL,
    check=True,
  )


def _first_steps(config: str) -> None:
  found = {}
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for kind in ('cold', 'warm'):
      _child(folder, '--first_step_of', str(folder / 'told.json'), config)
      found[kind] = json.loads((folder / 'told.json').read_text())
  print(json.dumps({'config': config, 'cores': processors.available(), **found}))


def _first_step(told: Path, name: str) -> None:
  import importlib

  import jax
  import jax.numpy as jnp
  import numpy as np
  from flax import traverse_util

  from medm2t_jax import experiment
  from medm2t_jax.experiment import default_data
  from medm2t_jax.runs.hosts import compilation_cache
  from medm2t_jax.runs.run import make_runs
  from medm2t_jax.training import losses, stage_training

  compilation_cache.use()
  path, _, variant = name.partition(':')
  module = importlib.import_module(path.removesuffix('.py').replace('/', '.'))
  config = module.get_config(variant)
  config = experiment.read(config).changed({'data.simulated_patients': 300})
  one = make_runs(config, default_data.open_or_simulate(config), Path('W'))[0]
  assert one.statistics
  stage, recipe = 'multimodal', config.recipe['multimodal']
  random = np.random.default_rng(0)
  given: dict[tuple[str, ...], Any] = {}
  for source in recipe.starts_from:
    if source in one.stages:
      declared = initial.shapes(one, source)
      shapes: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(declared)
      given |= {
        path: random.normal(0, 0.1, shape.shape).astype(shape.dtype)
        for path, shape in shapes.items()
        if path[0] == 'params'
      }
  times = {}
  start = time.monotonic()
  plan = stage_training.first_epoch(one, stage)
  optimizer = stage_training.optimizer_of(one, stage, len(plan))
  loss = losses.make_loss(recipe, one.dataset.schema.target)
  batch = next(one.reader.read(plan, one.modalities_of(stage)))
  variables = initial.init(one, stage, given)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    optimizer=optimizer.init(variables['params']),
    **variables,
  )
  state = jax.device_put(state, devices.replicated())
  jax.block_until_ready(state)
  times['plan, batch and parameters'] = round(time.monotonic() - start, 1)
  step = steps.train_step(one.model, stage, optimizer, loss, recipe.frozen)
  jax.block_until_ready(step(state, batch, initial.key(one, stage)))
  times['all'] = round(time.monotonic() - start, 1)
  told.write_text(json.dumps(times))


def _run(folder: Path, flags: list[str]) -> dict[str, Any]:
  """One run of the main command in `folder`."""
  told = folder / 'told.json'
  flags = [flag.replace('=configs/', f'={_ROOT}/configs/') for flag in flags]
  start = time.monotonic()
  _child(folder, '--measured', str(told), *flags)
  seconds = time.monotonic() - start
  result = json.loads(told.read_text())
  phases = result['phases']
  phases['start and rest'] = round(seconds - sum(phases.values()), 1)
  return {'seconds': round(seconds, 1), **result}


def _measured(told: Path, flags: list[str]) -> None:
  """Runs the main command and measures its phases and compilations."""
  import jax.monitoring
  from absl import app

  from medm2t_jax import baselines, command_line, main
  from medm2t_jax.evaluation import evaluate, explain, reporting, robustness
  from medm2t_jax.experiment import default_data
  from medm2t_jax.training import train

  phases: dict[str, float] = defaultdict(float)
  spent: dict[str, float] = defaultdict(float)
  programs: list[tuple[float, str]] = []

  def watch(owner: Any, name: str, phase: Callable[..., str]) -> None:
    function = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
      start = time.monotonic()
      try:
        return function(*arguments, **options)
      finally:
        phases[phase(*arguments)] += time.monotonic() - start

    setattr(owner, name, timed)

  def duration(event: str, duration_secs: float, **details: Any) -> None:
    spent[event] += duration_secs
    if event == _COMPILED:
      programs.append((duration_secs, str(details.get('fun_name', ''))))

  watch(default_data, 'open_or_simulate', lambda *_: 'data')
  watch(train, 'train_stage', lambda fold, stage: f'train {stage}')
  watch(evaluate, 'predict', lambda *_: 'predict')
  watch(robustness, 'damaged_predictions', lambda *_: 'predict damaged input')
  watch(baselines, 'predict', lambda *_: 'baselines')
  watch(explain, 'explain', lambda *_: 'explain')
  watch(reporting, 'write_report', lambda *_: 'report')
  jax.monitoring.register_event_duration_secs_listener(duration)
  events: Counter[str] = Counter()
  jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
  try:
    app.run(main.main, [sys.argv[0], *flags], flags_parser=command_line.parse_flags)
  except SystemExit as ended:
    if ended.code:
      raise
  result = {
    'phases': {name: round(seconds, 1) for name, seconds in phases.items()},
    'programs': len(programs),
    'loaded': events[_LOADED],
    'seconds_compiling_or_loading': round(spent[_COMPILED], 1),
    'seconds_tracing_and_lowering': round(spent[_TRACED] + spent[_LOWERED], 1),
    'longest': [
      [round(seconds, 1), name] for seconds, name in sorted(programs)[: -_LONGEST - 1 : -1]
    ],
  }
  told.write_text(json.dumps(result))


if __name__ == '__main__':
  main()
