"""Three benchmarks at their smallest, in one process: they run and report what they say."""

from __future__ import annotations

import json

import pytest

from tests.support import benchmark

# One after the other, for each process imports for seconds. A machine with a GPU has not
# all that prepares and reads data. A model of static columns compiles fast.
COMMAND = """
import runpy
import sys
for name in ('duckdb', 'tensorflow', 'tensorflow_datasets', 'wfdb'):
  sys.modules[name] = None

from benchmarks import model_case, model_workload, resume, trunk

model_case.Case.schema = property(
  lambda case: model_workload.schema(case.task).only(('static',))
)
trunk.main(
  '--only=mortality --members=1,16 --of=trunk,predict --size=tiny --repetitions=1 '
  '--allocator=default'.split()
)
assert 'torch' not in sys.modules
resume.main('--case=cvd/static --size=tiny --steps=40'.split())
sys.argv[1:] = (
  '--parts=throughput --times=2 --only=cvd/static --size=tiny --repetitions=1 '
  '--allocator=default'.split()
)
runpy.run_module('benchmarks.models', run_name='__main__')
"""


@pytest.fixture(scope='module')
def reports():
  found = [json.loads(line) for line in benchmark.lines('-c', COMMAND)]
  return dict(zip(('trunk', 'resume', 'models'), found, strict=True))


def test_members(reports):
  report = reports['trunk']
  row = report['mortality']
  for name in ('trunk', 'predict'):
    assert set(row[f'{name}_ms']) == {'1', '16'}
    assert min(row[f'{name}_ms'].values()) > 0
    assert row[f'{name}_ratio']['1'] == 1
  ratio = row['predict_ms']['16'] / row['predict_ms']['1']
  assert abs(row['predict_16_over_1'] / ratio - 1) < 0.01
  assert row['goal_met'] == (ratio <= report['goal']['ratio'])


def test_resume(reports):
  row = reports['resume']['cvd/static']
  assert row['repeated'] and row['restored']
  assert row['last_loss'] < row['first_loss']


def test_models(reports):
  report = reports['models']
  assert report['device'] == 'cpu'
  row = report['cvd/static']
  for name in ('train_vs_torch', 'inference_vs_torch', 'peak_share', 'ours_train_ms'):
    assert row[name] > 0
