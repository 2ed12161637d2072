"""Metrics under damage: values, pairing, the page, and what it says without data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation.context import DamageCurve, DamageLevel
from medm2t_jax.evaluation.reporting import write_report

NOT_FOUND = 'raw recordings not found at /raw/1.hea (3 of 3)'
SECTIONS = ('discrimination', 'robustness', 'card')


def curve(table, name='times_earlier', share=0.5, seed=0):
  """Half of the test rows in another order: the second level is undamaged again."""
  frame = table.to_pandas()
  frame = frame[frame.split == 'test'].sample(frac=share, random_state=seed)
  days = 'prediction' in frame
  columns = [name for name in frame if name == 'prediction' or name in ('p0', 'p1')]
  undamaged = frame[columns].to_numpy()
  undamaged = undamaged[:, 0] if days else undamaged
  worse = undamaged + 2 if days else undamaged[::-1]
  levels = [DamageLevel(1.0, worse, 2), DamageLevel(3.0, undamaged)]
  samples = np.array(frame.sample_id)
  return frame, DamageCurve(name, 'Times', 'Hours', samples, undamaged, levels)


def test_days_are_those_of_the_same_samples(tmp_path, predictions, context):
  table = predictions('los', 200)
  frame, damage = curve(table)
  metrics = write_report(
    tmp_path, table, *context('los', sections=SECTIONS, damage=[damage]), resamples=20
  )
  (found,) = metrics['robustness']
  error = (frame.prediction - frame.label).abs()
  worse = (frame.prediction + 2 - frame.label).abs()
  assert found['undamaged']['value'] == pytest.approx(error.mean())
  assert found['undamaged']['n'] == len(frame) == 100
  first, second = found['levels']
  assert first['metric']['value'] == pytest.approx(worse.mean())
  assert first['difference']['value'] == pytest.approx(worse.mean() - error.mean())
  assert first['refused'] == 2
  assert second['metric'] == found['undamaged']
  difference = second['difference']
  assert difference['value'] == difference['low'] == difference['high'] == 0


@pytest.mark.parametrize('task', ['mortality', 'los'])
def test_the_page_shows_curves_and_says_what_is_absent(
  task, tmp_path, predictions, context
):
  table = predictions(task, 200)
  _, damage = curve(table)
  absent = DamageCurve('ecg_white', 'White noise', 'dB', reason=NOT_FOUND)
  about = context(task, sections=SECTIONS, damage=[damage, absent])
  metrics = write_report(tmp_path, table, *about, resamples=20)
  page = (tmp_path / 'report.html').read_text()
  section = page.split('id="robustness"')[1].split('</section>')[0]
  metric = 'MAE (days)' if task == 'los' else 'AUROC'
  assert f'alt="{metric} with damaged input: Times"' in section
  assert f'Not shown: White noise: {NOT_FOUND}.' in section
  level = metrics['robustness'][0]['levels'][0]['metric']['value']
  assert 'Hours: 1' in section and f'{level:.{2 if task == "los" else 3}f}' in section
  assert metrics['robustness'][1] == {
    'name': 'ecg_white', 'title': 'White noise', 'axis': 'dB', 'reason': NOT_FOUND,
    'undamaged': None, 'levels': [],
  }  # fmt: skip


def test_a_curve_that_cannot_move_says_so(tmp_path, predictions, context):
  table = predictions('mortality', 200)
  _, moving = curve(table)
  same = [DamageLevel(62.5, moving.undamaged)]
  still = dataclasses.replace(moving, name='still', title='Bandwidth', levels=same)
  about = context('mortality', sections=SECTIONS, damage=[moving, still])
  metrics = write_report(tmp_path, table, *about, resamples=20)
  changed = [
    [level['changed'] for level in each['levels']] for each in metrics['robustness']
  ]
  assert changed == [[100, 0], [0]]
  page = (tmp_path / 'report.html').read_text()
  section = page.split('id="robustness"')[1].split('</section>')[0]
  assert 'Cannot move, because no prediction changes at any level: Bandwidth.' in section
  assert section.count('<td>no prediction changes</td>') == 2
  alone = context('mortality', sections=SECTIONS, damage=[still])
  metrics = write_report(tmp_path, table, *alone, resamples=20)
  page = (tmp_path / 'report.html').read_text()
  assert 'No damage that was tried changes any prediction.' in page


def test_undefined_metrics_do_not_stop_the_page(tmp_path, predictions, context):
  table = predictions('mortality', 40, rate=0.0)
  _, damage = curve(table)
  about = context('mortality', sections=SECTIONS, damage=[damage])
  metrics = write_report(tmp_path, table, *about, resamples=5)
  assert metrics['robustness'][0]['undamaged']['value'] is None
  assert 'id="robustness"' in (tmp_path / 'report.html').read_text()


def test_without_damage_there_is_no_section(tmp_path, predictions, context):
  write_report(
    tmp_path, predictions('los', 40), *context('los', sections=SECTIONS), resamples=5
  )
  assert 'id="robustness"' not in (tmp_path / 'report.html').read_text()


def test_samples_that_are_not_tested_are_refused(tmp_path, predictions, context):
  table = predictions('los', 40)
  _, damage = curve(table)
  damage.samples[0] = -1
  with pytest.raises(DataError, match='19 are test rows'):
    write_report(
      tmp_path, table, *context('los', sections=SECTIONS, damage=[damage]), resamples=5
    )
  assert np.isin(damage.samples[1:], table['sample_id'].to_numpy()).all()
