"""Shards written on Apache Beam are those of the local processes, byte for byte."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipeline.format.dataset import INDEX, RECORDINGS
from tests.support import staging_fixture

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / '.venv-beam/bin/python'
pytestmark = pytest.mark.skipif(
  not PYTHON.exists(), reason='no environment with Apache Beam: ./run.sh setup beam'
)

_BUILD = """
import shutil, sys
from pathlib import Path
from data_pipeline.preparation import beam, build
from tests.support import staging_fixture as fixture

def stage(tables):
  for path in raw.glob('*.parquet'):
    shutil.copy(path, tables)
  return fixture.staged()

if __name__ == '__main__':
  raw, out, bucket = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None
  run = beam.runner(' '.join(sys.argv[4:]), bucket)
  build.build(
    stage, out, request=fixture.REQUEST, memory_limit='1GB', workers=1, run=run,
    recordings_here=bucket is None, subject_key=fixture.SUBJECT_KEY,
  )
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  staging_fixture.build_dataset(path)
  return path


def build(folder, out, *options, bucket=''):
  command = [PYTHON, '-c', _BUILD, folder / 'raw', out, bucket, *options]
  return subprocess.run(
    [str(part) for part in command], cwd=ROOT, capture_output=True, text=True
  )


def contents(out):
  """Digest of every file; of parquet files the table: pyarrow writes its own version."""
  found = {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in out.iterdir()
    if path.suffix != '.parquet'
  }
  tables = (INDEX, RECORDINGS)
  return found | {name: pq.read_table(out / name) for name in tables}


def test_worker_processes(folder, tmp_path):
  options = ('--direct_num_workers=2', '--direct_running_mode=multi_processing')
  done = build(folder, tmp_path / 'out', '--runner=DirectRunner', *options)
  assert done.returncode == 0, done.stderr
  assert contents(tmp_path / 'out') == contents(folder / 'out')


def test_workers_that_see_only_a_bucket(folder, tmp_path):
  raw = folder / 'raw/ecg'
  header = sorted(raw.glob('*.hea'))[2]
  whole = header.read_text()
  header.write_text('no record line')
  staged = staging_fixture.staged()
  expected = staging_fixture.build_from(folder / 'raw', staged, tmp_path / 'expected')
  away = Path(f'{tmp_path}/bucket{raw}')
  away.parent.mkdir(parents=True)
  shutil.move(raw, away)
  try:
    done = build(
      folder, tmp_path / 'out', '--runner=DirectRunner', bucket=tmp_path / 'bucket'
    )
  finally:
    shutil.move(away, raw)
    header.write_text(whole)
  assert done.returncode == 0, done.stderr
  assert 'bad_header' in (expected / 'dropped_recordings.csv').read_text()
  assert contents(tmp_path / 'out') == contents(expected)


def test_a_failed_pipeline_is_one_clear_error_and_is_continued(folder, tmp_path):
  out = tmp_path / 'out'
  table = folder / 'raw/grid_vitals.parquet'
  whole = table.read_bytes()
  spoilt = pq.read_table(table).to_pandas()
  spoilt.loc[3, 'step'] = 6
  spoilt.to_parquet(table)
  done = build(folder, out, '--runner=DirectRunner')
  table.write_bytes(whole)
  assert done.returncode != 0
  message = 'DataError: the Beam pipeline failed: .*grid_vitals.parquet, column step'
  assert re.search(message, done.stderr), done.stderr
  shutil.rmtree(out / '.staging/tables')
  (out / '.staging/staged.json').unlink()
  done = build(folder, out, '--runner=DirectRunner')
  assert done.returncode == 0, done.stderr
  assert 'continuing an interrupted preparation' in done.stderr
  assert contents(out) == contents(folder / 'out')


def test_a_wrong_option_is_told_before_anything_is_read(tmp_path):
  done = subprocess.run(
    [str(PYTHON), '-m', 'data_pipeline.prepare', '--source=simulated', '--task=los',
     f'--out={tmp_path / "out"}', '--beam_options=--runner=NoSuchRunner'],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 1
  assert re.search('^error: --beam_options=.*NoSuchRunner', done.stderr, re.MULTILINE)
  assert not (tmp_path / 'out').exists()
