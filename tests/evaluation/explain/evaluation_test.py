"""From a training with a planted effect to the report and its pages."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from data_pipeline.format.dataset import open_dataset
from medm2t_jax.evaluation import evaluate
from medm2t_jax.experiment import read
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import train
from tests.support import static_data


def plant(raw) -> None:
  """A light weight is deadly; age and gender say nothing."""
  static = pd.read_parquet(raw / 'static.parquet')
  rng = np.random.default_rng(1)
  static['weight'] = rng.normal(80, 10, len(static))
  samples = pd.read_parquet(raw / 'samples.parquet')
  weight = static.set_index('sample_id')['weight']
  samples['label'] = (np.asarray(weight.loc[samples['sample_id']]) < 80).astype(float)
  static.to_parquet(raw / 'static.parquet')
  samples.to_parquet(raw / 'samples.parquet')


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
  folder = tmp_path_factory.mktemp('planted')
  dataset = open_dataset(static_data.build(folder, change=plant))
  config = static_data.config(dataset.directory)
  config.stages = 'multimodal'
  config.recipe.multimodal.update(
    batch_size=16,
    epochs=15,
    patience=15,
    learning_rate=3e-3,
    starts_from=(),
    optimizer='adam',
  )
  config.evaluation.update(
    baselines=(),
    sections=('explanation',),
    bootstrap=10,
    explained=4,
    explained_globally=16,
  )
  folds = make_runs(read(config), dataset, folder / 'workdir')
  train.train(folds)
  stale = folder / 'workdir' / 'eval' / 'patients' / '9.html'
  stale.parent.mkdir(parents=True)
  stale.write_text('of an earlier evaluation')
  return dataset, evaluate.evaluate(folds), folder / 'workdir' / 'eval'


def test_the_planted_variable_comes_first_with_its_sign(evaluated):
  _, metrics, _ = evaluated
  first, second, *_ = metrics['explanation']['items']
  assert (first['name'], first['unit'], first['modality']) == ('weight', 'kg', 'static')
  assert first['mean_absolute'] > 2 * second['mean_absolute']
  assert first['correlation'] < -0.9
  assert first['samples'] == metrics['explanation']['samples'] == 16
  # What ReLU's kinks leave between nodes.
  assert metrics['explanation']['largest_residual'] < 0.1


def test_the_report_leads_to_pages_that_name_nobody(evaluated):
  dataset, metrics, results = evaluated
  report = (results / 'report.html').read_text()
  section = report.split('id="explanation"')[1].split('</section>')[0]
  assert 'What the model looked at' in section
  pages = sorted(path.name for path in (results / 'patients').iterdir())
  assert pages == ['1.html', '2.html', '3.html', '4.html']
  assert re.findall(r'href="(patients[^"]*)"', section) == [f'patients/{p}' for p in pages]
  verdicts = [each['verdict'] for each in metrics['explanation']['patients']]
  assert verdicts == sorted(verdicts) and verdicts[0] == 'right'
  names = {str(name) for key in ('sample_id', 'subject_id') for name in dataset.index[key]}
  for page, each in zip(pages, metrics['explanation']['patients'], strict=True):
    text = (results / 'patients' / page).read_text()
    assert each['sample'] in text
    words = set(re.findall(r'\w+', re.sub(r'base64,[^"]*', '', text)))
    assert not words & {name for name in names if len(name) > 3}
