"""Operating points and the decision curve against counting."""

from __future__ import annotations

import pytest
from sklearn.metrics import roc_curve

from medm2t_jax.evaluation.rows import read_rows
from medm2t_jax.evaluation.sections.decisions import decision_curve, operating_points


def test_points_are_what_counting_at_their_threshold_gives(predictions, context):
  rows, _ = read_rows(predictions('mortality', 400), context('mortality').schema)
  scores, positive = rows.prediction[:, 1], rows.label == 1
  false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
  points = operating_points(rows, rows.outcomes[0], resamples=50)
  best = [true[false <= 0.1].max(), true[false <= 0.05].max(), true[true >= 0.9].min()]
  for point, sensitivity in zip(points, best, strict=True):
    flagged = scores >= point['threshold']
    assert point['sensitivity']['value'] == pytest.approx(sensitivity)
    assert point['sensitivity']['value'] == pytest.approx(flagged[positive].mean())
    assert point['specificity']['value'] == pytest.approx((~flagged)[~positive].mean())
    assert point['ppv']['value'] == pytest.approx(positive[flagged].mean())
    assert point['alerts_per_100']['value'] == pytest.approx(100 * flagged.mean())
    assert point['alerts_per_100']['low'] < point['alerts_per_100']['high']


def test_no_events_no_points(predictions, context):
  table = predictions('mortality', 40, rate=0.0)
  rows, _ = read_rows(table, context('mortality').schema)
  for point in operating_points(rows, rows.outcomes[0], resamples=10):
    assert point['threshold'] is None
    for name in ('sensitivity', 'specificity', 'ppv', 'alerts_per_100'):
      assert point[name]['value'] is None
      assert 'no sample of class "died"' in point[name]['reason']


def test_net_benefit_by_hand(predictions, context):
  rows, _ = read_rows(predictions('mortality', 200), context('mortality').schema)
  curve = decision_curve(rows, rows.outcomes[0])
  at = curve['threshold'].index(0.2)
  flagged = rows.prediction[:, 1] >= 0.2
  benefit = (flagged & (rows.label == 1)).sum() - 0.25 * (flagged & (rows.label == 0)).sum()
  assert curve['model'][at] == pytest.approx(benefit / 200)
  share = rows.label.mean()
  assert curve['all'][at] == pytest.approx(share - 0.25 * (1 - share))
