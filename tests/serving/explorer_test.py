"""The page of one patient: what it says, and that it says no more than was known."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from data_pipeline.format.schema import DataError, Target
from data_pipeline.reading import input_pipeline, one_sample, planning
from data_pipeline.reading.batching import Batching
from medm2t_jax.inference.attribution.explainer import Explainer
from medm2t_jax.inference.program import program
from medm2t_jax.serving.explorer.among_tests import among_tests
from medm2t_jax.serving.explorer.moments import known_at, moments_of
from medm2t_jax.serving.explorer.of_dataset import identity_of, notes_of
from medm2t_jax.serving.explorer.page import page
from medm2t_jax.serving.explorer.story import StoryTeller
from tests.support import kinds, small_bundle
from tests.support.chromium import CHROMIUM, Tab

BATCHING = Batching(
  buckets=({'labs': 8, 'notes': 8}, {'labs': 32, 'notes': 32}), max_recordings=2
)
EVIL = '</script><script>document.title = "evil"</script><b>'


@pytest.fixture(scope='module')
def model(dataset):
  """Of all kinds of modalities; without encoders, which take long to compile."""
  made = small_bundle.model(
    of=dataset.schema, batching=BATCHING, members=2, trunk='ensemble', ensemble=3,
    deep='none', segment_lengths=(3,),
  )  # fmt: skip
  curve = [{'predicted': p, 'observed': p + 0.02, 'n': 40} for p in (0.1, 0.5, 0.9)]
  return dataclasses.replace(
    made,
    tests={
      'predicted': {'dead': [each / 100 for each in range(1, 100)]},
      'calibration': {'before': {'classes': {'dead': {'curve': curve}}}},
    },
  )


@pytest.fixture(scope='module')
def row(dataset):
  """A sample with something of everything, and more events than the last bucket holds."""
  many = dataset.lengths('labs')
  has = [dataset.lengths(name) > 0 for name in ('notes', 'vitals', 'ecg')]
  return int(np.argmax(many * np.all(has, axis=0)))


@pytest.fixture(scope='module')
def example(model, dataset, row):
  return one_sample.sample_of(dataset, model.schema, row)


@pytest.fixture(scope='module')
def teller(model):
  return StoryTeller(model, Explainer(model))


@pytest.fixture(scope='module')
def risk(teller):
  return teller._risk  # its programs are compiled once


@pytest.fixture(scope='module')
def story(teller, example):
  return teller.tell(example)


def predicted(model, dataset, rows):
  """What `predict` makes of index rows."""
  plan = planning.plan_epoch(
    dataset, np.array(rows), modalities=model.schema.names, batching=model.batching,
    batch_rows=8,
  )  # fmt: skip
  of = jax.jit(program(model))
  found = {}
  for batch in input_pipeline.batches(
    dataset, plan, modalities=model.schema.names, batching=model.batching
  ):
    alone = jax.tree.map(lambda array: array[0], dict(batch))
    outputs = np.asarray(of(alone))
    found |= {int(row): outputs[k] for k, row in enumerate(alone['row']) if row >= 0}
  return found


def test_the_last_moment_is_the_prediction(model, dataset, story, risk, row):
  expected = predicted(model, dataset, [row])[row]
  (output,) = story['outputs']
  assert output['name'] == 'dead' and story['moments'][-1]['hours'] == 0
  assert output['values'][-1] == pytest.approx(expected[1], abs=1e-5)
  others = np.flatnonzero(dataset.lengths('ecg') == 0)[:2].tolist()
  for other, prediction in predicted(model, dataset, others).items():
    found = risk(one_sample.sample_of(dataset, model.schema, other))
    np.testing.assert_allclose(found.prediction[-1], prediction, atol=1e-5)


def test_risk_changes_with_what_is_known_and_the_band_is_of_the_members(risk, example):
  found = risk(example)
  assert 25 <= len(found.hours) <= 40 and found.members == 6
  assert np.ptp(found.prediction[:, 1]) > 0.01
  assert (found.low <= found.high).all() and (found.high - found.low).max() > 0.01


def test_nothing_later_changes_the_risk_of_a_moment(risk, example, model):
  before = risk(example)
  place = len(before.hours) // 2
  hours = before.hours[place]
  assert len(known_at(model.schema, example, hours)['labs']['time']) > 0
  later = {name: dict(arrays) for name, arrays in example.items()}
  for name in ('labs', 'notes'):
    later[name]['value'] = np.where(
      example[name]['time'] > hours, np.float32(9), example[name]['value']
    )
  later['vitals']['value'] = example['vitals']['value'] + 50  # the last 0.6 h
  gone = {name: known_at(model.schema, example, 0.0)[name] for name in example}
  recorded = example['ecg']['time'] > hours
  later['ecg'] = {key: array[~recorded] for key, array in gone['ecg'].items()}
  after = risk(later)
  np.testing.assert_allclose(
    after.prediction[: place + 1], before.prediction[: place + 1], atol=1e-6
  )
  assert not np.allclose(after.prediction[-1], before.prediction[-1], atol=1e-4)


def test_what_is_shown_was_observed(story, example, model):
  shown = {(each['modality'], each['name']): each for each in story['variables']}
  labs, items = example['labs'], model.schema.variables('labs')
  for place, item in enumerate(items):
    own = labs['item'] == place
    if not own.any():
      assert ('labs', item.name) not in shown
      continue
    each = shown['labs', item.name]
    np.testing.assert_allclose(each['hours'], labs['time'][own], rtol=1e-5)
    if item.categories:
      levels = [item.categories[level] for level in labs['category'][own]]
      assert each['values'] == levels
    else:
      np.testing.assert_allclose(each['values'], labs['value'][own], rtol=1e-4)
    for moment, known in zip(story['moments'], each['known'], strict=True):
      assert known == (np.asarray(each['hours']) <= moment['hours'] + 1e-6).sum()
  cells = sum(len(each['values']) for key, each in shown.items() if key[0] == 'vitals')
  assert cells == example['vitals']['observed'].sum()
  # A cell is known when it is over: one of 0.1 h that ends now was not half an hour ago.
  heart = shown['vitals', 'heart rate']
  assert heart['known'][-1] == len(heart['values']) and not any(heart['known'][:-1])
  assert story['ecg']['known'][-1] == len(example['ecg']['time'])


def test_contributions_add_up_and_none_are_lost(story):
  of = story['contributions']
  total = sum(each['attribution'] for each in of['by_variable'])
  assert of['complete']
  assert total == pytest.approx(of['output'] - of['baseline'] - of['residual'], abs=1e-6)
  by_modality = sum(each['attribution'] for each in of['by_modality'])
  assert by_modality == pytest.approx(total, abs=1e-9)
  # This model has no simple models: what is not of the static columns has a moment.
  timed = sum(sum(each['values']) for each in of['by_moment'])
  static = sum(e['attribution'] for e in of['by_modality'] if e['name'] == 'static')
  assert timed + static == pytest.approx(total, abs=1e-4)
  assert {each['modality'] for each in story['without']} == {*story_names(story)}


def story_names(story):
  return {each['name'] for each in story['contributions']['by_modality']}


def test_place_and_calibration_among_the_test_samples(model):
  low, middle = (among_tests(model, 1, p)['sentences'] for p in (0.001, 0.425))
  assert 'Among the lowest 1' in low[0]
  assert middle[0].startswith('Higher than 42')
  assert middle[1] == (
    'Of the 40 test samples with the nearest predictions (on average 50\xa0%), "dead" '
    'was true of 52\xa0%.'
  )
  none = among_tests(dataclasses.replace(model, tests={}), 1, 0.4)
  assert 'has no distribution' in none['sentences'][0] and not none['percentiles']


def test_who_it_is_is_not_told_unless_asked(teller, story, dataset, example, row, model):
  index = dataset.index
  numbers = [str(index[name][row]) for name in ('sample_id', 'subject_id')]
  seconds = np.datetime64(int(index['prediction_time'][row]), 's')
  secrets = [*numbers, str(seconds)[:10], str(int(index['prediction_time'][row]))]
  hidden = page(story)
  assert 'Identifiers and dates are hidden' in hidden
  assert not any(re.search(rf'\b{each}\b', hidden) for each in secrets)
  notes = notes_of(model, dataset, row)
  assert any('another key of subject hashes' in each for each in notes)
  named = page(teller.tell(example, identity_of(dataset, row), notes))
  assert all(each in named for each in numbers) and 'another key' in named


def test_text_from_data_is_escaped(story):
  evil = json.loads(json.dumps(story))
  evil['variables'][0]['name'] = evil['title'] = evil['outputs'][0]['name'] = EVIL
  evil['notes'].append(EVIL)
  found = page(evil)
  assert '<b>' not in found.replace('<b id="moment">', '').replace('<b>orange', '')
  assert found.count('<script') == 2
  data = re.search(r'id="story">(.*?)</script>', found, re.DOTALL)
  assert data and json.loads(data[1])['title'] == EVIL


def test_of_a_whole_history_moments_are_when_something_became_known(dataset, example):
  schema = dataclasses.replace(dataset.schema, observation_hours=None)
  found = moments_of(schema, example)
  times = np.concatenate([example[name]['time'] for name in ('labs', 'notes', 'ecg')])
  assert set(found) <= {0.0, *times.astype(float).tolist()} and found[-1] == 0
  assert found[0] == times.min() and (np.diff(found) > 0).all() and len(found) > 20


def test_a_number_and_a_patient_of_whom_nothing_is_known(dataset):
  target = Target('regression', unit='days', description='length of stay')
  schema = dataclasses.replace(dataset.schema.only(('static', 'labs')), target=target)
  made = small_bundle.model(
    of=schema, batching=Batching(buckets=({'labs': 8},)), trunk='ensemble', ensemble=1,
    deep='none',
  )  # fmt: skip
  empty = {
    name: {
      key: np.zeros([each or 0 for each in feature.shape], feature.dtype)
      for key, feature in modality.arrays.items()
    }
    for name, modality in schema.modalities.items()
  }
  found = StoryTeller(made, Explainer(made)).tell(empty)
  assert found['outputs'][0]['texts'][-1].endswith('days') and not found['variables']
  assert not found['band'] and found['ecg'] is None
  assert any('No data for labs' in each for each in found['notes'])
  assert 'No data for labs' in page(found)


def test_samples_that_are_not_there_and_other_tasks(dataset, model):
  with pytest.raises(DataError, match=r'has no sample -1\. The column'):
    one_sample.row_of(dataset, -1)
  other = dataclasses.replace(dataset.schema, task='los')
  with pytest.raises(DataError, match="predicts 'los'"):
    one_sample.sample_of(dataset, other, 0)


def test_a_sample_in_the_variables_of_a_model_that_has_others(dataset, model, row):
  labs = model.schema.modalities['labs']
  other = kinds.replaced(
    model.schema.only(('static', 'labs', 'ecg')),
    labs=dataclasses.replace(labs, items=labs.items[::-2]),
  )
  whole = one_sample.sample_of(dataset, dataset.schema, row)
  found = one_sample.sample_of(dataset, other, row)
  assert found.keys() == {'static', 'labs', 'ecg'}
  kept = np.isin(whole['labs']['item'], (0, 2))
  np.testing.assert_array_equal(found['labs']['time'], whole['labs']['time'][kept])
  np.testing.assert_array_equal(2 - 2 * found['labs']['item'], whole['labs']['item'][kept])
  np.testing.assert_array_equal(found['ecg']['signal'], whole['ecg']['signal'])


def test_the_command_writes_the_page(dataset, row, tmp_path):
  """Of a model that compiles fast: the process is what is tested."""
  model = small_bundle.model(
    of=dataset.schema.only(('static', 'labs')), batching=BATCHING, trunk='ensemble',
    ensemble=2, deep='none',
  )  # fmt: skip
  model.save(tmp_path / 'bundle')
  out, sample = tmp_path / 'pages' / 'patient.html', int(dataset.index['sample_id'][row])
  command = [
    *(sys.executable, '-m', 'medm2t_jax.explore', f'--model={tmp_path / "bundle"}'),
    *(f'--data={dataset.directory}', f'--sample={sample}', f'--out={out}', '--identify'),
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  told = json.loads(done.stdout.splitlines()[-1])
  assert told['page'] == str(out) and told['output'] == 'dead'
  expected = predicted(model, dataset, [row])[row][1]
  assert told['prediction'] == pytest.approx(expected, abs=1e-5)
  assert f'<dd>{sample}</dd>' in out.read_text()


# In a browser.

_READ = """({
  risk: document.getElementById('risk').textContent,
  when: document.getElementById('when').textContent,
  told: document.getElementById('as-of').getAttribute('aria-valuetext'),
  dimmed: document.querySelectorAll('circle.later').length,
})"""
_PAGE = """({
  title: document.title,
  label: document.querySelector('label[for="as-of"]').textContent,
  width: document.documentElement.scrollWidth,
  charts: document.querySelectorAll('svg[role="img"]').length,
  fetched: performance.getEntriesByType('resource').length,
  focused: document.activeElement.id,
})"""


@pytest.mark.skipif(
  CHROMIUM is None, reason='no chromium: install the package of that name'
)
@pytest.mark.parametrize('width', [390, 1200])
def test_arrow_keys_move_the_moment_and_the_number(story, tmp_path, width):
  file = tmp_path / 'page.html'
  file.write_text(page({**story, 'notes': [*story['notes'], EVIL]}))
  (output,) = story['outputs']
  with Tab(tmp_path, file.as_uri(), width=width) as tab:
    found = [tab.ask(_READ)]
    for _ in range(9):  # the slider is among the first that the tab key reaches
      tab.press('Tab', 9)
      if tab.ask('document.activeElement.id') == 'as-of':
        break
    for _ in story['moments'][1:]:
      tab.press('ArrowLeft', 37)
      found.append(tab.ask(_READ))
    tab.ask("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    told = tab.ask(_PAGE)
    tab.press('End', 35)
    at_the_end = tab.ask(_READ)
  found.reverse()
  when = [each['text'] for each in story['moments']]
  assert told['focused'] == 'as-of' and told['label'].startswith('As of')
  assert [each['risk'] for each in found] == output['texts']
  assert len(set(output['texts'])) > 3
  assert [each['when'] for each in found] == when
  expected = [f'{a}: {b}' for a, b in zip(when, output['texts'], strict=True)]
  assert [each['told'] for each in found] == expected
  dimmed = [each['dimmed'] for each in found]
  assert dimmed[-1] == 0 and dimmed[0] > 0 and sorted(dimmed, reverse=True) == dimmed
  assert at_the_end == found[-1] and 'evil' not in told['title']
  assert told['width'] <= width, 'it scrolls sideways'
  assert told['charts'] > 8 and not told['fetched']
