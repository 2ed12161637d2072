"""The benchmark of the ensemble's members, at its smallest: it reports what it says."""

from __future__ import annotations

from tests.support import benchmark

COMMAND = """
import sys
from benchmarks import trunk
trunk.main(sys.argv[1:])
assert not {'tensorflow', 'torch'} & set(sys.modules)
"""


def test_report():
  report = benchmark.report(
    *('-c', COMMAND, '--only=physionet', '--members=1,16', '--of=trunk,predict'),
    *('--size=tiny', '--repetitions=1', '--allocator=default'),
  )
  row = report['physionet2012']
  for name in ('trunk', 'predict'):
    assert set(row[f'{name}_ms']) == {'1', '16'}
    assert min(row[f'{name}_ms'].values()) > 0
    assert row[f'{name}_ratio']['1'] == 1
  ratio = row['predict_ms']['16'] / row['predict_ms']['1']
  assert abs(row['predict_16_over_1'] / ratio - 1) < 0.01
  assert row['goal_met'] == (ratio <= report['goal']['ratio'])
