"""Each task on the simulated hospital, by the commands: prepare, train, restore, report.

cvd is in train_test.py; mortality is a binary target like three of these, with nothing of
its own. Models and modalities are as few as show that a task runs with what is special
about it; what a trained model finds is in docs/experiments.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from flax import traverse_util
from sklearn.metrics import roc_auc_score

from data_pipeline.format.dataset import open_dataset
from data_pipeline.preparation import build
from data_pipeline.sources.mimic_iv.tasks import phenotypes
from medm2t_jax.inference import bundling, predicting
from medm2t_jax.inference.trained_model import TrainedModel
from tests.support import main_command

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = 100
# What the report calls it, and what it says of who is a sample.
WORDS = {
  'readmission': ('Unplanned readmission to the hospital', 'within 30 days of discharge'),
  'aki': ('Acute kidney injury of KDIGO', 'All risks are conditional'),
  'phenotypes': ('Conditions among the discharge diagnoses', 'until discharge'),
  'decompensation': ('Death', 'within 24 h of the prediction'),
  'los': ('Length of ICU stay', 'days'),
  'cvd_all': ('Admission and cardiovascular disease after an ECG', 'no_admission'),
}
MODALITIES = {'readmission': ('labs',)}  # of a whole admission; the others: static columns
# Of these two every section is made: numbers, and classes of samples that are ECGs.
WHOLE_REPORTS = ('los', 'cvd_all')
DROPPED_OUT = ('input', 'window', 'shared', 'decoder', 'modality')
FEW_SECTIONS = ('discrimination', 'card')


class Evaluated:
  """A task after `python -m medm2t_jax.main`: its data set and the files it has left."""

  def __init__(self, data: Path, work: Path, printed: list[str]):
    self.dataset, self.work = open_dataset(data), work
    self.summary = json.loads(printed[-1])
    self.metrics = json.loads((work / 'eval/metrics.json').read_text())
    self.page = (work / 'eval/report.html').read_text()
    table = pq.read_table(work / 'eval/predictions.parquet').to_pandas()
    self.tested = table[table.split == 'test'].sort_values('sample_id')


@pytest.fixture(scope='module')
def hospital(tmp_path_factory):
  return tmp_path_factory.mktemp('hospital')


@pytest.fixture(scope='module')
def evaluated(hospital):
  done = {}

  def of(task: str) -> Evaluated:
    if task not in done:
      done[task] = _run(hospital, task)
    return done[task]

  return of


def _run(hospital: Path, task: str) -> Evaluated:
  data, work = hospital / task, hospital / f'work-{task}'
  ecgs = task == 'cvd_all'  # whose samples are ECGs
  build.prepare(
    source='simulated', task=task, out=data, workers=1, ecgs=ecgs,
    raw=hospital / ('raw-ecgs' if ecgs else 'raw'), patients=40 if ecgs else PATIENTS,
  )  # fmt: skip
  ended = main_command.run(
    f'--config={ROOT}/configs/task.py:{task},smoke',
    f'--workdir={work}',
    f'--config.data.dir={data}',
    f'--config.data.modalities={MODALITIES.get(task, ("static",))}',
    # Ensembles and blends: targets_test.py; stages before this one: train_test.py.
    '--config.model.trunk=decoder',
    '--config.blend=()',
    '--config.stages=multimodal',
    '--config.recipe.multimodal.starts_from=()',
    # Programs that compile fast.
    *(f'--config.recipe.multimodal.{name}=0.0' for name in ('clip_norm', 'weight_decay')),
    *(f'--config.model.{name}_dropout=0.0' for name in DROPPED_OUT),
    '--config.model.pooling=tokens',
    '--config.evaluation.batch_size=16',
    '--config.evaluation.bootstrap=20',
    *(f'--config.evaluation.sections={FEW_SECTIONS}' for _ in {task} - {*WHOLE_REPORTS}),
  )
  assert ended.code == 0, ended.code
  return Evaluated(data, work, ended.lines)


@pytest.mark.parametrize('task', list(WORDS))
def test_a_task_ends_with_a_report_about_it(evaluated, task):
  found = evaluated(task)
  assert found.summary['task'] == task
  assert found.summary['test']['value'] == found.metrics['headline']['value']
  simple = {'los': ['Ridge regression'], 'cvd_all': ['Logistic regression']}
  for words in (*WORDS[task], 'Simulated patients', *simple.get(task, ())):
    assert words in found.page, words
  tested = found.dataset.rows(0, 'test')
  known = found.dataset.index['sample_id'][tested]
  assert found.tested.sample_id.tolist() == sorted(known.tolist())
  assert found.metrics['headline']['n'] == len(known) > 5


@pytest.mark.parametrize('task', ['aki', 'phenotypes', 'decompensation'])
def test_its_bundle_predicts_the_same(evaluated, task):
  found = evaluated(task)
  model = TrainedModel.load(bundling.folder_of(found.work, 0))
  again = predicting.predict(model, found.dataset, allow_seen=True)
  samples = found.dataset.index['sample_id'][again.rows]
  predicted = pd.DataFrame(again.predictions, index=samples).loc[found.tested.sample_id]
  columns = [f'p{i}' for i in range(predicted.shape[1])]
  np.testing.assert_allclose(predicted, found.tested[columns], atol=1e-5)


def test_length_of_stay_is_predicted_in_days(evaluated):
  found = evaluated('los')
  assert found.metrics['headline']['name'] == 'MAE'
  error = (found.tested.prediction - found.tested.label).abs().mean()
  assert found.metrics['headline']['value'] == pytest.approx(error, rel=1e-6)


def test_readmission_is_of_admissions_of_any_length(evaluated):
  found = evaluated('readmission')
  assert found.dataset.schema.observation_hours is None
  assert found.tested.subject_id.nunique() < len(found.tested)
  assert found.tested.present_labs.any()
  assert 'the whole history' not in found.page


def test_phenotypes_have_metrics_each_where_it_occurs(evaluated):
  found = evaluated('phenotypes')
  label = np.stack(found.tested['label'])
  probability = found.tested[[f'p{i}' for i in range(25)]].to_numpy()
  each = found.metrics['pooled']['classes']
  assert tuple(each) == phenotypes.names()
  varied = [0 < column.sum() < len(column) for column in label.T]
  assert 3 < sum(varied) < 25
  areas = []
  for column, score, (name, metrics), both in zip(
    label.T, probability.T, each.items(), varied, strict=True
  ):
    if both:
      areas.append(roc_auc_score(column, score))
      assert metrics['auroc']['value'] == pytest.approx(areas[-1])
    else:
      assert metrics['auroc']['value'] is None and name in metrics['auroc']['reason']
    assert name in found.page or '&' in name
  assert found.metrics['headline']['value'] == pytest.approx(np.mean(areas))
  micro = roc_auc_score(label.ravel(), probability.ravel())
  assert found.metrics['pooled']['micro']['auroc']['value'] == pytest.approx(micro)


def test_every_stay_of_decompensation_weighs_the_same(evaluated):
  found = evaluated('decompensation')
  index = found.dataset.index
  stay = index['sample_id'] // 10_000
  weight = pd.Series(index['weight'], dtype=np.float64).groupby(stay)
  np.testing.assert_allclose(weight.sum(), 1, rtol=1e-5)
  assert weight.size().max() > 10
  tested = found.tested
  of_tested = dict(zip(index['sample_id'], index['weight'], strict=True))
  np.testing.assert_array_equal(tested.weight, tested.sample_id.map(of_tested))
  area = roc_auc_score(tested.label, tested.p1, sample_weight=tested.weight)
  assert found.metrics['headline']['value'] == pytest.approx(area)
  [died] = found.metrics['pooled']['classes'].values()
  share = np.average(tested.label, weights=tested.weight)
  assert died['prevalence'] == pytest.approx(share) != tested.label.mean()
  assert 'metrics are weighted; n and events' in found.page
  # A model that knows nothing predicts what stays, not samples, have.
  trained = found.dataset.rows(0, 'train')
  label, weight = index['label'][trained], index['weight'][trained]
  prior = TrainedModel.load(bundling.folder_of(found.work, 0)).members[0].variables
  offset = next(
    value for path, value in traverse_util.flatten_dict(prior['fitted']).items()
    if path[-1] == 'offset'
  )  # fmt: skip
  odds = (1 + weight @ (label == 1)) / (1 + weight @ (label == 0))
  assert offset[1] - offset[0] == pytest.approx(np.log(odds), rel=1e-4)
