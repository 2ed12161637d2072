"""The table of ablations: means over seeds, what is said of a difference, the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from medm2t_jax.evaluation.rows import read_rows
from medm2t_jax.studies.ablation_table import Ablations

ABOUT = {
  'task': 'mortality',
  'source': 'simulated',
  'data_version': 'v1',
  'folds': [0, 1],
  'seeds': [0, 1],
  'left_out': {'without_ecg': 'the data set has no ecg'},
  'to_run': ['windows_1'],
}
DESCRIBED = {
  'group': 'Fusion',
  'question': 'Does <b>it</b> help?',
  'changes': {'model.fusion': 'none'},
  'trained': ['multimodal'],
  'taken': [],
}


def noisy(rows, seed, scale):
  """The predictions of the rows with noise added."""
  rng = np.random.default_rng(seed)
  if rows.prediction.ndim == 1:
    return rows.prediction + rng.normal(0, scale, len(rows))
  logits = np.log(rows.prediction + 1e-9) + rng.normal(0, scale, rows.prediction.shape)
  weights = np.exp(logits)
  return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('task', ['mortality', 'los'])
def test_metrics_are_means_over_seeds_and_worse_is_called_worse(
  task, predictions, context, tmp_path
):
  rows, _ = read_rows(predictions(task, 600), context(task).schema)
  full = [noisy(rows, seed, 0.1) for seed in (0, 1)]
  bad = [noisy(rows, seed, 4.0) for seed in (2, 3)]
  comparison = Ablations(rows, full, resamples=60)
  comparison.add({**DESCRIBED, 'name': 'without_attention'}, bad)
  assert comparison.verdict().startswith('worse')
  comparison.add({**DESCRIBED, 'name': 'same'}, full[::-1])
  assert comparison.verdict().startswith('no difference shown')
  comparison.add({**DESCRIBED, 'name': 'oracle'}, [_oracle(rows)] * 2)
  assert comparison.verdict().startswith('better')
  result = comparison.write(tmp_path, {**ABOUT, 'task': task})
  assert json.loads((tmp_path / 'ablations.json').read_text()) == result

  def metric(prediction):
    if task == 'los':
      return np.abs(prediction - rows.label).mean()
    return metrics.roc_auc_score(rows.label, prediction[:, 1])

  name = 'mae' if task == 'los' else 'auroc'
  expected = [metric(b) - metric(a) for a, b in zip(full, bad, strict=True)]
  entry = result['ablations'][0]
  assert entry['by_seed'][name] == pytest.approx(expected)
  assert entry['differences'][name]['value'] == pytest.approx(np.mean(expected))
  assert entry['differences'][name]['low'] < np.mean(expected)
  page = (tmp_path / 'ablations.html').read_text()
  assert '<b>it</b>' not in page and 'data:image/svg+xml' in page
  for text in ('windows_1: not run yet.', 'oracle: better', 'without_attention'):
    assert text in page
  assert '## Differences to the full model' in (tmp_path / 'ablations.md').read_text()


def _oracle(rows):
  if rows.prediction.ndim == 1:
    return rows.label
  return np.eye(rows.prediction.shape[1])[rows.label.astype(int)]
