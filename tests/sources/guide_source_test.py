"""The source of the guide: found by its name, prepared like every other one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import sources
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.heads import read_head
from data_pipeline.format.schema import DataError
from data_pipeline.preparation import build

GUIDE = Path(__file__).resolve().parents[2] / 'docs/guides/extend.md'


@pytest.fixture(autouse=True)
def ward(tmp_path, monkeypatch):
  """The package of the guide, beside the sources that come along."""
  blocks = re.findall(r'```python\n(.*?)```', GUIDE.read_text(), re.DOTALL)
  (code,) = [block for block in blocks if "source='ward'" in block]
  package = tmp_path / 'sources' / 'ward'
  package.mkdir(parents=True)
  (package / '__init__.py').write_text(code)
  monkeypatch.setattr(sources, '__path__', [*sources.__path__, str(tmp_path / 'sources')])
  yield
  sys.modules.pop('data_pipeline.sources.ward', None)


def write(folder, pulse):
  """Five patients and the given rows of pulse."""
  folder.mkdir()
  rows = [f'{n},{n},2150-01-0{n} 08:00,{40 + n},{n % 2 == 0}' for n in range(1, 6)]
  (folder / 'patients.csv').write_text(
    '\n'.join(['stay,patient,admitted,age,died', *rows]) + '\n'
  )
  (folder / 'pulse.csv').write_text('\n'.join(['stay,charted,bpm', *pulse]) + '\n')
  return folder


def prepare(folder, out):
  build.prepare(source='ward', task='mortality', out=out, workers=1, ward=folder)
  return open_dataset(out)


def test_it_is_prepared_as_it_says(tmp_path):
  folder = write(
    tmp_path / 'raw',
    [
      '1,2150-01-01 10:00,80', '1,2150-01-02 08:00,90', '1,2150-01-02 08:01,91',
      '1,2150-01-01 07:59,70', '1,2150-01-01 11:00,900', '2,2150-01-02 09:00,60',
      '9,2150-01-02 09:00,60', '3,,60',
    ],
  )  # fmt: skip
  dataset = prepare(folder, tmp_path / 'out')
  assert 'ward' in sources.names()
  index = dataset.index
  assert sorted(index['sample_id']) == [1, 2, 3, 4, 5]
  np.testing.assert_array_equal(index['label'], index['sample_id'] % 2 == 0)
  (row,) = np.flatnonzero(index['sample_id'] == 1)
  found = read_head(dataset, int(row))
  np.testing.assert_array_equal(found['events/pulse/time'], [-22, 0])
  np.testing.assert_array_equal(found['events/pulse/value'], [80, 90])
  cohort = json.loads((tmp_path / 'out' / 'cohort.json').read_text())
  assert cohort['rows']['pulse'] == {
    'dropped: after the prediction time': 1,
    'dropped: before the observation window': 1,
    'dropped: missing time': 1,
    'dropped: no plausible value': 1,
    'dropped: unknown stay': 1,
  }


def test_a_damaged_table_is_named(tmp_path):
  folder = write(tmp_path / 'raw', ['1,yesterday,80'])
  with pytest.raises(DataError, match=r'pulse\.csv: missing, or not a CSV with stay'):
    prepare(folder, tmp_path / 'out')
