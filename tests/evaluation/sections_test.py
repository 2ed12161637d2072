"""Sections of the report: a new one is a file and a line, and each can be left out."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from medm2t_jax.evaluation import sections
from medm2t_jax.evaluation.reporting import write_report
from medm2t_jax.experiment.options import EvaluationOptions, Shown

GUIDE = Path(__file__).resolve().parents[2] / 'docs/guides/extend.md'


def test_the_section_of_the_guide_is_computed_and_shown(
  tmp_path, predictions, context, monkeypatch
):
  blocks = re.findall(r'```python\n(.*?)```', GUIDE.read_text(), re.DOTALL)
  (code,) = [block for block in blocks if "NAME = 'mean_risk'" in block]
  made = types.ModuleType('mean_risk')
  exec(compile(code, str(GUIDE), 'exec'), made.__dict__)
  monkeypatch.setattr(sections, 'SECTIONS', (made, *sections.SECTIONS))
  table = predictions('mortality', 200)
  about = context('mortality', 200, sections=['mean_risk', 'calibration'])
  metrics = write_report(tmp_path, table, *about, resamples=5)
  test = table.to_pandas().query('split == "test"')
  found = metrics['mean_risk']['died']
  assert found['predicted'] == pytest.approx(test.p1.mean())
  assert found['observed'] == pytest.approx(np.mean(test.label == 1))
  high = 'died' if found['predicted'] > found['observed'] else 'no outcome'
  said = f'More is predicted than observed of: {high}.'
  assert metrics['verdicts']['mean_risk'] == said
  page = (tmp_path / 'report.html').read_text()
  shown = re.findall(r'<section id="([a-z_]+)"', page)
  assert shown == ['mean_risk', 'calibration']
  assert f'<h2>Mean risk</h2>\n<p class="verdict">{said}</p>' in page
  assert set(metrics['seconds']) == {'mean_risk', 'discrimination', 'calibration'}


def test_what_is_left_out_is_neither_computed_nor_shown(tmp_path, predictions, context):
  table, about = predictions('los', 60), context('los', 60, sections=['training'])
  metrics = write_report(tmp_path, table, *about, resamples=5)
  assert not {'subgroups', 'missing_modality', 'baselines', 'robustness'} & set(metrics)
  # A trained model tells of them.
  assert {'headline', 'pooled', 'calibration', 'folds', 'predicted'} <= set(metrics)
  page = (tmp_path / 'report.html').read_text()
  assert re.findall(r'<section id="([a-z_]+)"', page) == ['training']


def test_every_section_can_be_chosen():
  names = tuple(each.NAME for each in sections.SECTIONS)
  assert names == get_args(Shown) == EvaluationOptions().sections
  assert sections.chosen(('card', 'baselines')) == (sections.baselines, sections.card)
