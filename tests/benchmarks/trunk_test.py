"""The benchmark of the ensemble's members, at its smallest: it reports what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.xla_flags import xla_flags

ROOT = Path(__file__).resolve().parents[2]

COMMAND = """
import sys
from benchmarks import trunk
trunk.main(sys.argv[1:])
assert not {'tensorflow', 'torch'} & set(sys.modules)
"""


def test_report():
  result = subprocess.run(
    [
      *(sys.executable, '-c', COMMAND, '--only=physionet', '--members=1,16'),
      *('--of=trunk,predict', '--size=tiny', '--repetitions=1', '--allocator=default'),
    ],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': xla_flags(1)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  report = json.loads(result.stdout.splitlines()[-1])
  row = report['physionet2012']
  for name in ('trunk', 'predict'):
    assert set(row[f'{name}_ms']) == {'1', '16'}
    assert min(row[f'{name}_ms'].values()) > 0
    assert row[f'{name}_ratio']['1'] == 1
  ratio = row['predict_ms']['16'] / row['predict_ms']['1']
  assert abs(row['predict_16_over_1'] / ratio - 1) < 0.01
  assert row['goal_met'] == (ratio <= report['goal']['ratio'])
