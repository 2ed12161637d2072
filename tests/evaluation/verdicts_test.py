"""The first line of every section: good, bad, and what cannot be judged."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace

import numpy as np
import pytest

from medm2t_jax.evaluation import sections
from medm2t_jax.evaluation.context import DamageCurve, DamageLevel
from medm2t_jax.evaluation.reporting import write_report
from medm2t_jax.evaluation.rows import read_rows
from medm2t_jax.evaluation.sections import (
  baselines,
  calibration,
  decisions,
  discrimination,
  explanation,
  missing_modality,
  robustness,
  subgroups,
  training,
)


def estimate(value, low=None, high=None, n=400):
  reason = None if low is not None else 'no interval: there is one subject only'
  return {'value': value, 'low': low, 'high': high, 'n': n, 'reason': reason}


@pytest.fixture
def judge(predictions, context):
  """`judge(section, task, samples, **metrics)`: its verdict, with plain spaces."""

  def made(section, task, samples=400, **metrics):
    rows, _ = read_rows(predictions(task, samples), context(task).schema)
    numeric = rows.target.numeric
    default = {'name': 'MAE', 'average': None} if numeric else {'name': 'AUROC'}
    headline = {'average': 'died', **estimate(0.8, 0.7, 0.9), **default}
    evaluation = SimpleNamespace(metrics={'headline': headline, **metrics}, test=rows)
    return section.verdict(evaluation).replace('\N{NO-BREAK SPACE}', ' ')

  return made


@pytest.mark.parametrize(
  ('task', 'samples'),
  [
    ('mortality', 6),
    ('los', 6),
    ('mortality', 400),
    ('los', 400),
    ('phenotypes', 400),
  ],
)
def test_every_section_begins_with_its_verdict(
  task, samples, tmp_path, predictions, context
):
  table = predictions(task, samples)
  frame = table.to_pandas().query('split == "test"')
  names = [name for name in frame if re.fullmatch(r'p\d|prediction', name)]
  own = frame[names].to_numpy()
  own = own[:, 0] if task == 'los' else own
  worse = own + 2 if task == 'los' else own[::-1]
  damage = DamageCurve(
    'times_earlier', 'Times', 'Hours', np.array(frame.sample_id), own,
    [DamageLevel(3.0, worse)],
  )  # fmt: skip
  about = context(task, samples, damage=[damage], baselines={'gru': worse})
  metrics = write_report(tmp_path, table, *about, resamples=5)
  page = (tmp_path / 'report.html').read_text()
  shown = re.findall(
    r'<section id="(\w+)"><h2>[^<]+</h2>\n<p class="verdict">([^<]+)</p>', page
  )
  assert {name: html.unescape(text) for name, text in shown} == metrics['verdicts']
  absent = {'explanation'} | ({'decisions'} if task == 'los' else set())
  assert set(metrics['verdicts']) == {each.NAME for each in sections.SECTIONS} - absent
  assert page.count('<section id=') == len(shown)
  for name, text in metrics['verdicts'].items():
    assert re.fullmatch(r'["A-Z0-9].*\.', text), text
    if samples == 6 and name not in ('card', 'training'):
      assert 'cannot be judged' in text, text
  first = page.split('</header>')[0]
  for name in ('discrimination', 'calibration', 'baselines'):
    assert html.escape(metrics['verdicts'][name]).replace('&quot;', '&#34;') in first


def test_discrimination(judge):
  say = lambda *ends: judge(
    discrimination, 'mortality',
    headline={'name': 'AUROC', 'average': 'died', **estimate(*ends)},
  )  # fmt: skip
  assert 'gives the higher risk to the right one in 84' in say(0.842, 0.8, 0.88)
  assert 'may be chance: the interval includes 0.5' in say(0.55, 0.46, 0.66)
  assert 'worse than chance' in say(0.3, 0.2, 0.4)
  assert say(0.8).startswith('Discrimination cannot be judged: no interval')
  assert 'fewer than 100 samples' in judge(discrimination, 'mortality', 60)


def test_errors_of_numbers(judge):
  say = lambda *ends: judge(
    discrimination, 'los', pooled={'overall': {'r2': estimate(*ends)}}
  )
  assert 'explain 40 % of the variance' in say(0.4, 0.3, 0.5)
  assert 'not shown to be better than predicting the mean' in say(0.1, -0.1, 0.3)
  assert 'worse than predicting the mean' in say(-0.5, -0.8, -0.2)


def test_calibration(judge):
  def say(bias, slope):
    died = {'bias': estimate(*bias), 'slope': estimate(*slope)}
    before = {'classes': {'died': died}}
    found = {'before': before, 'after': None}
    return judge(calibration, 'mortality', calibration=found)

  good = say((0.001, -0.01, 0.012), (1.05, 0.9, 1.2))
  assert good.startswith('Predicted risks agree with what happened on average')
  assert 'slope, 0.90 to 1.20, includes 1' in good
  high = say((0.013, 0.004, 0.022), (0.7, 0.6, 0.8))
  assert 'too high on average, by 1.3 (0.4 to 2.2) percentage points' in high
  assert 'too extreme (slope 0.70 (0.60 to 0.80), ideal 1)' in high
  low = say((-0.013, -0.022, -0.004), (1.4, 1.2, 1.6))
  assert 'too low' in low and 'too close together' in low
  assert 'cannot be judged: fewer than 100' in judge(
    calibration, 'mortality', 60, calibration={}
  )


def test_bias_is_mean_predicted_minus_observed(tmp_path, predictions, context):
  table = predictions('mortality', 300)
  about = context('mortality', 300, sections=['calibration'])
  metrics = write_report(tmp_path, table, *about, resamples=30)
  test = table.to_pandas().query('split == "test"')
  bias = metrics['calibration']['before']['classes']['died']['bias']
  assert bias['value'] == pytest.approx(test.p1.mean() - test.label.mean())
  assert bias['low'] < bias['value'] < bias['high']


def test_decisions(judge):
  point = {
    'name': 'specificity at least 90 %', 'threshold': 0.21,
    'sensitivity': estimate(0.61, 0.52, 0.7), 'ppv': estimate(0.38, 0.3, 0.47),
  }  # fmt: skip
  found = {'classes': {'died': {'operating_points': [point]}}}
  said = judge(decisions, 'mortality', decisions=found)
  assert 'finds 61 % of "died" (52 to 70 %), and 38 % of its alerts are right' in said
  few = judge(decisions, 'mortality', 60, decisions=found)
  assert few.startswith('Use at a threshold cannot be judged')


def test_baselines(judge):
  def say(samples=400, **differences):
    entries = [
      {'name': name, 'differences': {'auroc': each}} for name, each in differences.items()
    ]
    metrics = {'baselines': entries, 'baselines_left_out': []}
    return judge(baselines, 'mortality', samples, **metrics)

  lost = estimate(-0.1, -0.2, -0.05)
  won, even = estimate(0.1, 0.05, 0.2), estimate(0.0, -0.1, 0.1)
  assert say(gru=lost, boosted_trees=won, logistic_regression=even) == (
    'By AUROC, this model is better than the GRU and worse than boosted trees; no '
    'difference to logistic regression is shown.'
  )
  assert say(gru=even) == 'No difference is shown between this model and the GRU.'
  assert 'cannot be judged: fewer than' in say(60, gru=even)
  assert 'cannot be judged: no interval' in say(gru=estimate(None))


def test_subgroups(judge):
  def say(*metrics, warning=None):
    groups = [
      {'name': name, 'metric': each, 'warning': warning}
      for name, each in zip('FM', metrics, strict=True)
    ]
    return judge(subgroups, 'mortality', subgroups=[{'by': 'sex', 'groups': groups}])

  same, low = estimate(0.8, 0.7, 0.9), estimate(0.6, 0.5, 0.7)
  assert 'inside the interval of each of the 2 groups' in say(same, same)
  said = say(low, same)
  assert 'it is lower for sex: F (0.600 (0.500 to 0.700))' in said
  assert 'of 2 groups' in said.lower() and 'sex: M' not in said
  assert 'higher for sex: M' in say(same, estimate(0.95, 0.9, 0.99))
  assert 'every group is too small' in say(low, same, warning='fewer than 100 samples')


def test_missing_modality(judge):
  def say(*differences, samples=400, task='mortality'):
    found = [
      {'name': f'only {name}', 'difference': each}
      for name, each in zip(('labs', 'ecg'), differences, strict=True)
    ]
    return judge(missing_modality, task, samples, missing_modality=found)

  even, lost = estimate(0.0, -0.1, 0.1), estimate(-0.2, -0.3, -0.1)
  assert say(even, lost) == (
    'AUROC is worse in 1 of 2 cases with fewer modalities, most in "only ecg": difference '
    '−0.200 (−0.300 to −0.100).'
  )
  assert 'In none of 2 cases' in say(even, even)
  assert 'cannot be judged: fewer than' in say(even, even, samples=60)
  # Of an error more is worse.
  assert 'In none of 2 cases' in say(lost, lost, task='los')


def test_robustness(judge):
  def say(difference, base):
    level = {'level': 90.0, 'difference': difference, 'changed': 1}
    curve = {
      'name': 'lost', 'title': 'Modalities lost', 'axis': '%', 'undamaged': base,
      'levels': [level],
    }  # fmt: skip
    absent = {'name': 'raw', 'undamaged': None}
    return judge(robustness, 'mortality', robustness=[curve, absent])

  base = estimate(0.8, 0.7, 0.9)
  assert say(estimate(-0.2, -0.3, -0.1), base) == (
    '1 of 1 kind of damage make AUROC worse, most "Modalities lost" (%: 90): difference '
    '−0.200 (−0.300 to −0.100).'
  )
  even = estimate(0.0, -0.1, 0.1)
  assert say(even, base) == 'None of 1 kind of damage is shown to make AUROC worse.'
  few = estimate(0.8, 0.5, 1.0, n=60)
  assert 'cannot be judged: too few were damaged, 60 samples' in say(even, few)
  assert 'is shown' not in say(estimate(None), estimate(None))


def test_explanation(judge):
  items = [
    {'name': name, 'mean_absolute': value}
    for name, value in (('Lactate', 4.0), ('Age', 3.0), ('pH', 2.0), ('Sodium', 1.0))
  ]
  found = {'items': items, 'samples': 64, 'incomplete': 0, 'patients': []}
  said = judge(explanation, 'mortality', explanation=found)
  assert '"Lactate", "Age" and "pH" have the largest attributions: 90 %' in said
  said = judge(explanation, 'mortality', explanation={**found, 'incomplete': 3})
  assert 'those of 3 samples do not add up' in said
  found = {**found, 'items': [], 'patients': [{}]}
  said = judge(explanation, 'mortality', explanation=found)
  assert said.startswith('1 sample has a page; which variables matter')


def test_training(judge):
  def say(best, loss=0.3):
    stage = {
      'refit': False, 'stage': 'labs', 'epochs': 6, 'best_epoch': best,
      'validation_loss': loss,
    }  # fmt: skip
    return judge(training, 'mortality', stages=[stage])

  assert 'more epochs would not help' in say(5)
  assert '(labs): more epochs may help' in say(6)
  assert 'cannot be judged' in say(5, None)
