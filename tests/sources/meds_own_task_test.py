"""The worked example of docs/your_own_task.md on the open demo, held against raw tables."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_pipeline.format.schema import Target
from data_pipeline.sources import Resources, meds
from data_pipeline.sources.meds.labelling.tasks import read_task

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / '../shared/data'
MEDS, RAW = DATA / 'mimic-iv-demo-meds', DATA / 'mimic-iv-demo'
PAGE = (ROOT / 'docs/your_own_task.md').read_text(encoding='utf-8')
TARGET = Target(
  'binary',
  ('stays', 'leaves'),
  description='discharge from the ICU',
  horizon='48 hours after the prediction',
)
demo = pytest.mark.skipif(
  not (MEDS.exists() and RAW.exists()), reason='the demo is not at ../shared/data'
)


def blocks(language):
  return re.findall(rf'```{language}\n(.*?)```', PAGE, re.DOTALL)


@pytest.fixture(scope='module')
def example(tmp_path_factory):
  """The folder of the example, with the label file that the page's code has written."""
  folder = tmp_path_factory.mktemp('example')
  (folder / 'mimic-iv-demo-meds').symlink_to(MEDS.resolve())
  [code] = blocks('python')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    exec(compile(code, 'docs/your_own_task.md', 'exec'), {})
  _, task, _ = blocks('yaml')
  (folder / 'leaves_icu.yaml').write_text(task)
  return folder


def by_hand():
  """The cohort from MIMIC-IV's own table of stays: label by subject and time."""
  stays = pd.read_csv(RAW / 'icu/icustays.csv.gz', parse_dates=['intime', 'outtime'])
  days = (stays.outtime - stays.intime) / pd.Timedelta(days=1)
  stays = stays.assign(time=stays.intime + pd.Timedelta(days=1), label=days <= 3)
  stays = stays[days > 1].sort_values(['subject_id', 'time'])
  return stays[['subject_id', 'time', 'label']].reset_index(drop=True)


def staged(folder, out, **settings):
  chosen = meds.Settings(
    meds=MEDS, mapping='mimic_iv', task_file=folder / 'leaves_icu.yaml', **settings
  )
  task = chosen.task_name(None)
  result = meds.stage(task, out, chosen, Resources())
  samples = pd.read_parquet(out / 'samples.parquet').sort_values('sample_id')
  found = samples[['subject_id', 'prediction_time', 'label']]
  return result, found.set_axis(['subject_id', 'time', 'label'], axis=1)


@demo
def test_the_cohort_is_that_of_the_table_of_stays(example, tmp_path):
  result, found = staged(example, tmp_path)
  expected = by_hand()
  assert (len(expected), expected.label.sum()) == (61, 28)
  pd.testing.assert_frame_equal(
    found.reset_index(drop=True), expected.astype({'label': float}), check_dtype=False
  )
  assert (result.schema.task, result.schema.target) == ('leaves_icu', TARGET)
  assert result.cohort['rows']['labels'] == {'read': 61} and not result.cohort['notes']
  assert {step['subjects'] for step in result.cohort['steps']} == {46}


@demo
def test_files_as_aces_leaves_them_give_the_same(example, tmp_path):
  """A file for each shard of the data, all value columns, and one shard of nobody."""
  labels = pq.read_table(example / 'leaves_icu.parquet')
  folder = tmp_path / 'cohorts/leaves_icu'
  kinds = {'integer_value': pa.int64(), 'float_value': pa.float32(),
           'categorical_value': pa.string()}  # fmt: skip
  for shard in ('train', 'held_out', 'tuning'):
    inside = set()
    if shard != 'tuning':
      inside |= {*pd.read_parquet(MEDS / f'data/{shard}/0.parquet').subject_id}
    rows = labels.filter(pa.array([s.as_py() in inside for s in labels['subject_id']]))
    for name, kind in kinds.items():
      rows = rows.append_column(name, pa.nulls(len(rows), kind))
    (folder / shard).mkdir(parents=True)
    pq.write_table(rows, folder / shard / '0.parquet')
  (folder / '.logs').mkdir()
  results = {}
  for name, settings in (('one', {}), ('shards', {'labels': str(folder)})):
    results[name] = staged(example, tmp_path / name, **settings)
  (one, found), (shards, same) = results.values()
  pd.testing.assert_frame_equal(same, found)
  assert shards.schema == one.schema and shards.cohort == one.cohort


def test_the_configuration_of_aces_is_that_of_the_code():
  """es-aces itself is not installed here; the page says what its cohort was."""
  windows = yaml.safe_load(blocks('yaml')[0])['windows']
  assert windows['input']['index_timestamp'] == 'end'
  assert windows['input']['end'] == 'trigger + 24h'
  assert windows['first_day']['has'] == {'icu_discharge': '(None, 0)'}
  assert windows['target'] == {
    'start': 'first_day.end', 'end': 'start + 48h', 'start_inclusive': False,
    'end_inclusive': True, 'label': 'icu_discharge',
  }  # fmt: skip


def test_the_task_files_of_the_page(tmp_path):
  for text in blocks('yaml')[1:]:
    for name in ('leaves_icu.parquet', 'cohorts/aki/0.parquet', 'cohorts/sepsis.parquet'):
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_bytes(b'')
    (tmp_path / 'task.yaml').write_text(text)
    task = read_task(tmp_path / 'task.yaml')
    assert task.description and task.horizon and task.labels
    if task.kind == 'binary':
      assert task.target('binary', task.classes) == TARGET
    else:
      assert task.classes == ('Sepsis', 'Acute kidney injury')
      assert task.labels.names == ('aki', 'sepsis')
