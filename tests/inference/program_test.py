"""A trained model as one function, and what it takes to load one."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ('tensorflow', 'tensorflow_datasets', 'sklearn', 'matplotlib', 'optuna', 'pandas')


def test_a_trained_model_is_loaded_without_what_trains_and_reads():
  script = (
    'import sys\n'
    'import medm2t_jax.inference.trained_model, medm2t_jax.inference.program\n'
    f'print(sorted(set({HEAVY}) & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == '[]'
