"""The written report: files, structure, escaping, self-containment, tiny data."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation.reporting import write_report

FIRST = ('discrimination', 'calibration', 'card')
_VOID = {'meta', 'img', 'line', 'circle', 'br'}


class _Page(HTMLParser):
  """Collects tags, links and whether tags nest."""

  def __init__(self, text: str):
    super().__init__()
    self.open: list[str] = []
    self.tags: set[str] = set()
    self.links: list[str] = []
    self.ids: set[str] = set()
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    self.links += [value for name, value in attrs if name in ('src', 'href')]
    self.ids |= {value for name, value in attrs if name == 'id'}
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_startendtag(self, tag, attrs):
    self.tags.add(tag)


def _no_nan(value):
  if isinstance(value, dict):
    return all(map(_no_nan, value.values()))
  if isinstance(value, list):
    return all(map(_no_nan, value))
  return not isinstance(value, float) or math.isfinite(value)


def _metrics(value):
  """Every estimate inside `value`."""
  if isinstance(value, dict):
    if {'value', 'low', 'high', 'reason'} <= set(value):
      yield value
    for each in value.values():
      yield from _metrics(each)
  elif isinstance(value, list):
    for each in value:
      yield from _metrics(each)


@pytest.mark.parametrize('task', ['mortality', 'cvd', 'los'])
@pytest.mark.parametrize('samples', [4, 240])
def test_report_of_every_task_and_size(task, samples, tmp_path, predictions, context):
  table = predictions(task, samples)
  metrics = write_report(tmp_path / 'eval', table, *context(task, samples), resamples=30)
  written = sorted(path.name for path in (tmp_path / 'eval').iterdir())
  assert written == ['metrics.json', 'model_card.md', 'predictions.parquet', 'report.html']
  text = (tmp_path / 'eval' / 'metrics.json').read_text()
  assert json.loads(text) == metrics
  assert _no_nan(metrics)
  assert pq.read_table(tmp_path / 'eval' / 'predictions.parquet').equals(table)
  common = {
    'baselines', 'bootstrap', 'calibration', 'dataset_version', 'folds', 'format',
    'explanation', 'headline', 'missing_modality', 'modalities', 'notes', 'pooled',
    'predicted', 'robustness', 'source', 'stages', 'subgroups', 'target', 'task', 'test',
    'trained_on', 'baselines_left_out', 'seconds', 'verdicts',
  }  # fmt: skip
  assert set(metrics) == common | ({'decisions'} if task != 'los' else set())
  assert metrics['test']['n'] == samples
  assert set(metrics['folds']) == {'0', '1'}
  assert len(metrics['missing_modality']) == 2
  for metric in _metrics(metrics):
    assert {'n', 'subjects', 'events'} <= set(metric)
    assert (metric['low'] is None) == (metric['reason'] is not None)
    if metric['value'] is None:
      assert metric['low'] is None


@pytest.mark.parametrize('task', ['mortality', 'los'])
def test_page_is_self_contained_and_escaped(task, tmp_path, predictions, context):
  hostile = '<img src=x onerror=alert(1)> $title'
  notes = context(task, 200, notes=[hostile], environment={hostile: hostile})
  write_report(tmp_path, predictions(task, 200), *notes, resamples=20)
  text = (tmp_path / 'report.html').read_text()
  page = _Page(text)
  assert page.open == []
  assert 'script' not in page.tags
  assert 'link' not in page.tags
  assert page.links
  for link in page.links:
    assert re.match(r'data:(image/svg\+xml|text/csv);base64,|#', link)
    assert not link.startswith('#') or link[1:] in page.ids
  assert not re.search(r'url\(|@import|onerror=alert\(1\)>', text)
  assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text
  assert '&lt;img src=x onerror=alert(1)&gt; $title' in text
  card = (tmp_path / 'model_card.md').read_text()
  assert '<img' not in card
  assert '<script' not in card
  assert len(text) < 2_000_000


def test_first_screen_says_what_matters(tmp_path, predictions, context):
  metrics = write_report(
    tmp_path,
    predictions('mortality', 400),
    *context('mortality', 400, sections=FIRST),
    resamples=50,
  )
  header = (tmp_path / 'report.html').read_text().split('</header>')[0]
  headline = metrics['headline']
  for part in (
    'In-hospital mortality', 'simulated hospital', f'{headline["value"]:.3f}',
    f'{headline["low"]:.3f}', f'400 of {metrics["test"]["subjects"]} subjects',
    'temperature-scaled', 'static, labs, ecg', 'Simulated data: no clinical meaning.',
  ):  # fmt: skip
    assert part in header


def test_undefined_metrics_are_said_on_the_first_screen(tmp_path, predictions, context):
  table = predictions('mortality', 20, rate=0.0)
  metrics = write_report(
    tmp_path, table, *context('mortality', 20, sections=FIRST), resamples=20
  )
  assert metrics['headline']['value'] is None
  assert metrics['calibration']['after'] is None
  header = (tmp_path / 'report.html').read_text().split('</header>')[0]
  assert 'undefined' in header
  assert 'no sample of class &#34;died&#34; among 20' in header
  assert 'Only 20 test samples' in header
  assert 'Temperature scaling was not possible' in header
  assert 'Undefined on the test samples' in (tmp_path / 'model_card.md').read_text()


def test_headline_reads_test_rows_only(tmp_path, predictions, context):
  table = predictions('los', 200)
  metrics = write_report(tmp_path, table, *context('los', sections=FIRST), resamples=10)
  frame = table.to_pandas()
  test = frame[frame.split == 'test']
  expected = (test.prediction - test.label).abs().mean()
  assert metrics['headline']['value'] == pytest.approx(expected)


def test_same_predictions_give_the_same_bytes(tmp_path, predictions, context):
  for name in ('a', 'b'):
    write_report(
      tmp_path / name, predictions('mortality', 60), *context('mortality'), resamples=20
    )
  for name in ('report.html', 'model_card.md'):
    assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
  found = [json.loads((tmp_path / name / 'metrics.json').read_text()) for name in 'ab']
  assert found[0].pop('seconds').keys() == found[1].pop('seconds').keys()
  assert found[0] == found[1]


@pytest.mark.parametrize(
  ('column', 'value', 'message'),
  [
    ('label', 2.0, 'a label is not one that a binary target has'),
    ('p1', math.inf, 'a prediction is not a finite number'),
    ('p1', 0.999, 'probabilities do not sum to 1'),
    ('split', 'train', "split is 'train'"),
    ('sample_id', 1_000_001, 'a sample is tested more than once'),
  ],
)
def test_bad_predictions_are_refused(
  column, value, message, tmp_path, predictions, context
):
  frame = predictions('mortality', 40).to_pandas()
  frame.loc[0, column] = value
  table = predictions('mortality', 40).from_pandas(frame)
  with pytest.raises(DataError, match=message):
    write_report(tmp_path / 'eval', table, *context('mortality'), resamples=5)
  assert not (tmp_path / 'eval').exists()


def test_subject_in_two_splits_is_refused(tmp_path, predictions, context):
  frame = predictions('mortality', 40).to_pandas()
  validation = frame.index[(frame.split == 'validation') & (frame.fold == 0)]
  frame.loc[validation[0], 'subject_id'] = frame.subject_id[0]
  table = predictions('mortality', 40).from_pandas(frame)
  with pytest.raises(DataError, match='1 subjects of fold 0 are in both'):
    write_report(tmp_path, table, *context('mortality'), resamples=5)


def test_missing_column_is_named(tmp_path, predictions, context):
  table = predictions('mortality', 40).drop_columns(['p1'])
  with pytest.raises(DataError, match='column p1 is missing'):
    write_report(tmp_path, table, *context('mortality'), resamples=5)


def test_loss_that_is_not_a_number_is_null(tmp_path, predictions, context):
  history = [{'epoch': 0, 'train_loss': math.nan, 'validation_loss': math.inf}]
  stage = {**context('mortality').context.stages[0], 'validation_loss': math.nan}
  about = context(
    'mortality', sections=('training', 'card'), stages=[{**stage, 'history': history}]
  )
  metrics = write_report(tmp_path, predictions('mortality', 40), *about, resamples=5)
  assert _no_nan(json.loads((tmp_path / 'metrics.json').read_text()))
  assert metrics['stages'][0]['validation_loss'] is None
  assert metrics['stages'][0]['history'][0]['train_loss'] is None


@pytest.mark.parametrize(
  ('task', 'samples'), [('mortality', 120), ('los', 120), ('los', 4400)]
)
def test_every_picture_has_its_numbers(task, samples, tmp_path, predictions, context):
  table = predictions(task, samples)
  shown = ['discrimination', 'calibration', 'training']
  about = context(task, samples, sections=shown)
  write_report(tmp_path, table, *about, resamples=2)
  page = (tmp_path / 'report.html').read_text()
  pictures = re.findall(r'<figure.*?</figure>', page, re.DOTALL)
  assert len(pictures) >= 4
  numbers = {}
  for picture in pictures:
    ((name, data),) = re.findall(
      r'download="(\w+)\.csv" href="data:text/csv;base64,([^"]+)"', picture
    )
    numbers[name] = pd.read_csv(io.StringIO(base64.b64decode(data).decode()))
    assert len(numbers[name]), name
  if task == 'los':
    test = table.to_pandas().query('split == "test"')
    found = numbers['predicted_against_true_values']
    if samples < 2000:
      np.testing.assert_allclose(found['True (days)'], test.label, rtol=1e-5)
      np.testing.assert_allclose(found['Predicted (days)'], test.prediction, rtol=1e-5)
    else:  # those within the axes, in hexagons
      assert 0.95 * len(test) < found['Samples'].sum() <= len(test)
