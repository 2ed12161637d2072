"""The command: requests, interruptions at any point, opening what was prepared."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from data_pipeline import folders
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.preparation import build
from tests.preparation.shards_test import digests
from tests.support import staging_fixture

ROOT = Path(__file__).resolve().parents[2]

# Prepares the fixture in one process after another, each of which dies without any cleaning
# up, as if killed, when a function is called for the n-th time; before the call, or after
# it. Says how each has ended and whether there is a data set then.
_KILLED = """
import importlib, json, os, sys
from pathlib import Path
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from tests.support import staging_fixture

raw, out = map(Path, sys.argv[1:3])

def killed(original, when, left):
  def call(*args, **kwargs):
    nonlocal left
    left -= 1
    if left == 0 and when == 'before':
      os._exit(9)
    result = original(*args, **kwargs)
    if left == 0:
      os._exit(9)
    return result
  return call

for where, when, calls in json.loads(sys.argv[3]):
  if not (child := os.fork()):
    module, name = where.rsplit('.', 1)
    module = importlib.import_module(f'data_pipeline.{module}')
    setattr(module, name, killed(getattr(module, name), when, calls))
    staging_fixture.build_from(raw, staging_fixture.staged(), out)
    os._exit(0)
  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  try:
    state = open_dataset(out) and 'finished'
  except DataError as error:
    state = str(error)
  print(json.dumps([where, status, state]), flush=True)
"""


def test_killed_again_and_again_it_ends_with_the_same_bytes(folder, tmp_path):
  points = [
    ('preparation.build.write_json', 'before', 1),  # the request
    ('preparation.build.write_json', 'before', 2),  # the source's step is complete
    ('preparation.staging.assign', 'after', 1),
    ('preparation.staging.text', 'before', 2),  # between two sorted tables
    ('format.records.frame', 'before', 20),  # inside a shard
    ('preparation.shards.write_json', 'before', 2),  # a shard without its manifest
    ('preparation.publish._write_index', 'before', 1),
    ('preparation.publish._write_tfds_metadata', 'after', 1),
    ('preparation.publish.write_json', 'after', 2),  # finished, staging still there
  ]
  out = tmp_path / 'out'
  done = subprocess.run(
    [sys.executable, '-c', _KILLED, folder / 'raw', out, json.dumps(points)],
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    capture_output=True,
    text=True,
  )
  told = [json.loads(line) for line in done.stdout.splitlines()]
  assert [where for where, *_ in told] == [where for where, *_ in points], done.stderr
  for where, status, state in told:
    assert status == 9, (where, done.stderr)
    if where == 'preparation.publish.write_json':
      assert state == 'finished'
    else:
      assert 'not a finished data set' in state, where
  assert (out / '.staging').exists()
  staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), out)
  assert digests(out) == digests(folder / 'out')


def test_workers_end_with_a_killed_parent(folder, tmp_path):
  script = (
    "if __name__ == '__main__':\n"
    '  import sys; from pathlib import Path\n'
    '  from tests.support import staging_fixture as f\n'
    '  raw, out = map(Path, sys.argv[1:])\n'
    '  staged = f.staged()\n'
    '  f.build_from(raw, staged, out, workers=2)\n'
  )
  path, out = tmp_path / 'run.py', tmp_path / 'out'
  path.write_text(script)
  parent = subprocess.Popen(
    [sys.executable, path, folder / 'raw', out],
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    stderr=subprocess.DEVNULL,
  )
  manifests = out / '.staging/manifests'
  while not list(manifests.glob('*.json')):
    assert parent.poll() is None
    time.sleep(0.01)
  workers = psutil.Process(parent.pid).children(recursive=True)
  parent.kill()
  parent.wait()
  deadline = time.monotonic() + 20
  while any(_is_alive(worker) for worker in workers):
    assert time.monotonic() < deadline, workers
    time.sleep(0.05)
  assert len(workers) >= 2
  staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), out)
  assert digests(out) == digests(folder / 'out')


def _is_alive(process):
  try:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def test_two_preparations_of_one_folder_do_not_mix(folder, tmp_path):
  out = tmp_path / 'out'

  def stage(tables):
    with pytest.raises(
      DataError, match=r'lock: another process prepares a data set here \(process \d+'
    ):
      staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), out)
    for path in (folder / 'raw').glob('*.parquet'):
      shutil.copy(path, tables)
    return staging_fixture.staged()

  build.build(
    stage,
    out,
    request=staging_fixture.REQUEST,
    memory_limit='1GB',
    workers=1,
    subject_key=staging_fixture.SUBJECT_KEY,
  )
  assert digests(out) == digests(folder / 'out')


@pytest.mark.parametrize('where', ['staging.sort', 'publish.publish'])
def test_a_disk_that_fills_up_anywhere_is_one_clear_error(
  folder, tmp_path, monkeypatch, where
):
  def fill_up(*args, **kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as patched, pytest.raises(DataError, match='no space left'):
    patched.setattr(f'data_pipeline.preparation.{where}', fill_up)
    staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), tmp_path / 'out')
  staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), tmp_path / 'out')
  assert digests(tmp_path / 'out') == digests(folder / 'out')


def test_what_a_killed_shard_left_is_removed(folder, tmp_path):
  out = tmp_path / 'out'
  (out / '.staging').mkdir(parents=True)
  request = json.dumps(staging_fixture.REQUEST)
  (out / '.staging/request.json').write_text(request)
  (out / 'mortality-fold0.tfrecord-00000-of-00003.0a1b2c3d.partial').write_text('half')
  staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), out)
  assert digests(out) == digests(folder / 'out')


def test_a_finished_data_set_is_left_alone(folder, capsys):
  before = digests(folder / 'out')

  def stage(tables):
    raise AssertionError('staged again')

  build.build(
    stage,
    folder / 'out',
    request=staging_fixture.REQUEST,
    memory_limit='1GB',
    workers=1,
  )
  assert 'finished, nothing to do' in capsys.readouterr().err
  assert digests(folder / 'out') == before


def test_another_request_is_refused(folder):
  with pytest.raises(
    DataError, match=r'different request \(source is fixture there and x here'
  ):
    build.build(
      lambda tables: staging_fixture.staged(),
      folder / 'out',
      request={**staging_fixture.REQUEST, 'source': 'x'},
      memory_limit='1GB',
      workers=1,
    )


def test_a_folder_with_other_files_is_refused(folder, tmp_path):
  (tmp_path / 'thesis.tex').write_text('')
  with pytest.raises(DataError, match='holds other files'):
    staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_the_estimate_is_printed_and_a_small_disk_refused(
  folder, tmp_path, monkeypatch, capsys
):
  usage = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr(build.shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(DataError, match='are needed'):
    staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), tmp_path / 'out')
  assert 'recordings: about' in capsys.readouterr().err


def test_what_there_is_to_read_is_told_before_it_is_read(tmp_path, monkeypatch, capsys):
  mimic, ecg = tmp_path / 'mimic', tmp_path / 'ecg'
  for path in (mimic / 'hosp/a.csv.gz', ecg / 'list.csv', ecg / 'files/p1/s1/1.dat'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
    os.truncate(path, 3_000_000_000)  # sparse

  def stage(*_):
    told = capsys.readouterr().err
    assert '6.0 GB of raw tables: roughly up to 6 minutes and 2.4 GB of scratch' in told
    raise DataError('here it would be read')

  monkeypatch.setattr('data_pipeline.sources.mimic_iv.stage', stage)
  with pytest.raises(DataError, match='here it would be read'):
    build.prepare(
      source='mimic_iv', task='los', out=tmp_path / 'out', mimic_iv=mimic, mimic_iv_ecg=ecg
    )


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda out: (out / 'dataset.json').unlink(), 'not a finished data set'),
    (lambda out: (out / 'dataset.json').write_text('{'), 'not valid JSON'),
    (lambda out: (out / 'index.parquet').unlink(), 'index is missing'),
    (lambda out: (out / 'index.parquet').write_text('x'), 'not a parquet file'),
    (lambda out: next(out.glob('*-fold0*')).unlink(), 'fold0.* is missing'),
    (lambda out: next(out.glob('*-fold1*')).write_text('x'), 'fold1.* has 1 bytes'),
  ],
)
def test_damaged_data_sets_are_not_opened(folder, tmp_path, damage, message):
  out = tmp_path / 'out'
  shutil.copytree(folder / 'out', out)
  damage(out)
  with pytest.raises(DataError, match=message):
    open_dataset(out)


def test_a_fold_that_does_not_exist(folder):
  with pytest.raises(DataError, match='fold 5'):
    open_dataset(folder / 'out').rows(5, 'train')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'source': None}, '--source=None: give one of'),
    ({'source': 'vax'}, '--source=vax: give one of'),
    ({'task': 'age'}, '--task=age: give one of cvd'),
    ({'availability': 'now'}, '--availability=now: give one of charttime, storetime'),
    ({'static': 'all'}, '--static=all: give one of core, extended'),
    ({'source': 'simulated'}, '--mimic_iv: not an option of source simulated'),
    ({'patients': 9}, '--patients: not an option of source mimic_iv'),
    ({'mimic_iv': '/nowhere'}, '--mimic_iv=/nowhere: no such folder'),
    ({'mimic_iv_ecg': '/nowhere'}, '--mimic_iv_ecg=/nowhere: no such folder'),
  ],
)
def test_wrong_arguments_name_the_flag_and_write_nothing(tmp_path, arguments, message):
  roots = {'mimic_iv': tmp_path, 'mimic_iv_ecg': tmp_path}
  out = tmp_path / 'out'
  with pytest.raises(DataError, match=re.escape(message)):
    build.prepare(**{'source': 'mimic_iv', 'task': 'los', 'out': out, **roots, **arguments})
  assert not out.exists()


def test_a_missing_setting_is_named_with_its_help(tmp_path):
  with pytest.raises(DataError, match='--mimic_iv is missing: Folder of MIMIC-IV'):
    build.prepare(source='mimic_iv', task='los', out=tmp_path / 'out')


def test_a_wrong_memory_limit_is_named(folder, tmp_path):
  with pytest.raises(DataError, match='--memory_limit=much'):
    staging_fixture.build_from(
      folder / 'raw', staging_fixture.staged(), tmp_path / 'out', memory_limit='much'
    )


def test_beam_without_its_environment(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  with pytest.raises(DataError, match=r'--beam_options: apache_beam is not installed'):
    build.prepare(
      source='simulated', task='los', out=tmp_path / 'out', beam_options='--runner=X'
    )
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--task=cvd'], '--out is missing'),
    (['--task=cvd', '--out=gs://b/cvd'], 'mount the bucket'),
    (['--outt=x'], "Unknown command line flag 'outt'"),
    (['out'], 'out: not a flag'),
  ],
)
def test_a_wrong_command_is_one_clear_line(tmp_path, arguments, message):
  done = subprocess.run(
    [sys.executable, '-m', 'data_pipeline.prepare', *arguments],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert message in done.stderr
  assert done.stdout == '' and len(done.stderr.strip().splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_too_many_bad_recordings_stop_until_they_are_mended(tmp_path):
  raw, out = tmp_path / 'raw', tmp_path / 'out'
  raw.mkdir()
  staged = staging_fixture.write_staging(raw)
  headers = sorted(tmp_path.rglob('*.hea'))
  # The fixture has flat and missing recordings of its own.
  staging_fixture.build_from(raw, staged, tmp_path / 'before')
  before = _dropped(tmp_path / 'before')
  assert {row['reason'] for row in before} <= {'flat', 'missing_file'}
  victim = headers[3]
  text = victim.read_text()
  victim.write_text(text.replace(' 500 5000', ' 500 4294967295'))
  limit = len(before) / len(headers)
  build = lambda most: staging_fixture.build_from(
    raw, staged, out, max_dropped_recordings=most
  )
  with pytest.raises(DataError, match=r'recordings are unusable.*the first /'):
    build(limit)
  assert not (out / 'dataset.json').exists()
  victim.write_text(text)  # mended: the same command goes on, and reads it again
  build(limit)
  assert digests(out) == digests(tmp_path / 'before')


def test_one_bad_recording_is_dropped_and_named(tmp_path):
  raw = tmp_path / 'raw'
  raw.mkdir()
  staged = staging_fixture.write_staging(raw)
  victim = sorted(tmp_path.rglob('*.hea'))[3]
  victim.write_text(victim.read_text().replace('200.0(0)/mV', '200.0.0(0)/mV', 1))
  out = staging_fixture.build_from(raw, staged, tmp_path / 'out')
  [row] = [row for row in _dropped(out) if row['reason'] == 'bad_header']
  assert row['path'] == str(victim.with_suffix('')) and 'not a number' in row['detail']
  assert json.loads((out / 'cohort.json').read_text())['rows']['ecg']['bad_header'] == 1


def test_a_folder_without_the_recordings_is_an_error_before_the_work(tmp_path):
  raw = tmp_path / 'raw'
  raw.mkdir()
  staged = staging_fixture.write_staging(raw)
  for header in tmp_path.rglob('*.hea'):
    header.unlink()
  with pytest.raises(DataError, match=r'none of \d+ checked files exists.*\.hea'):
    staging_fixture.build_from(raw, staged, tmp_path / 'out')
  assert not list((tmp_path / 'out').glob('*.tfrecord*'))


def test_what_nobody_has_is_said(tmp_path, capsys):
  raw = tmp_path / 'raw'
  raw.mkdir()
  staged = staging_fixture.write_staging(raw)
  labs = pq.read_table(raw / 'events_labs.parquet')
  pq.write_table(labs.slice(0, 0), raw / 'events_labs.parquet')
  rows = {'labevents': {'read: wanted items of the cohort': 0}}
  staged = dataclasses.replace(staged, cohort={**staged.cohort, 'rows': rows})
  out = staging_fixture.build_from(raw, staged, tmp_path / 'out')
  absent = [
    'labevents: no usable row, read: wanted items of the cohort is 0',
    'events_labs: no sample has any',
  ]
  assert json.loads((out / 'cohort.json').read_text())['absent'] == absent
  told = capsys.readouterr().err.splitlines()
  assert [line for line in told if line.startswith('warning')][:2] == [
    f'warning: {line}' for line in absent
  ]


def _dropped(out):
  with (out / 'dropped_recordings.csv').open(newline='') as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('name', ['', '/deeper'])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, name):
  (tmp_path / 'file').write_text('')
  with pytest.raises(DataError, match=r'--out=.*file.*cannot create this folder'):
    staging_fixture.build_from(
      tmp_path, staging_fixture.staged(), Path(f'{tmp_path}/file{name}')
    )


def test_a_name_with_a_backslash_is_refused(tmp_path):
  with pytest.raises(DataError, match='without a backslash'):
    staging_fixture.build_from(tmp_path, staging_fixture.staged(), tmp_path / 'a\\b')


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(folders.os, 'access', lambda path, mode: False)  # root may always
  with pytest.raises(DataError, match=r'--out=.*cannot write to this folder'):
    staging_fixture.build_from(tmp_path, staging_fixture.staged(), tmp_path / 'out')


def test_files_that_other_systems_leave_are_no_data(folder, tmp_path):
  for name in ('.DS_Store', '._labs', 'Thumbs.db'):
    (tmp_path / name).write_text('')
  (tmp_path / '.ipynb_checkpoints').mkdir()
  staging_fixture.build_from(folder / 'raw', staging_fixture.staged(), tmp_path)
  assert open_dataset(tmp_path).version == open_dataset(folder / 'out').version


def test_the_request_is_recorded(folder):
  metadata = json.loads((folder / 'out/dataset.json').read_text())
  assert metadata['request'] == staging_fixture.REQUEST
