"""Which samples get a page."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.evaluation.explain.choose import choose_samples

BINARY = targets.of(Target('binary', ('survived', 'died')))

# Predicted 0 0 0 1 1 0 with confidence .99 .98 .7 .6 .8 .9; 4 and 5 are wrong.
P1 = np.array([0.01, 0.02, 0.3, 0.6, 0.8, 0.1])
LABEL = np.array([0, 0, 0, 1, 0, 1])
PREDICTION = np.stack([1 - P1, P1], axis=1)


@pytest.mark.parametrize(
  ('count', 'right', 'wrong'),
  [
    (0, [], []),
    (1, [0], []),
    # A predicted death comes second, though two survivors are more certain.
    (4, [0, 3], [5, 4]),
    (5, [0, 3, 1], [5, 4]),
    (100, [0, 3, 1, 2], [5, 4]),
  ],
)
def test_predicted_classes_take_turns_by_confidence(count, right, wrong):
  expected = [(i, 'right') for i in right] + [(i, 'wrong') for i in wrong]
  assert choose_samples(PREDICTION, LABEL, count, BINARY) == expected


def test_one_half_fills_up_for_the_other():
  assert [i for i, _ in choose_samples(PREDICTION, P1 > 0.5, 4, BINARY)] == [0, 4, 1, 3]
  assert [v for _, v in choose_samples(PREDICTION, P1 <= 0.5, 4, BINARY)] == ['wrong'] * 4


def test_days_have_small_and_large_errors():
  days = targets.of(Target('regression', unit='days'))
  predicted, true = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 9.0, 3.5, 6.0])
  found = choose_samples(predicted, true, 3, days)
  assert found == [(0, 'close'), (2, 'close'), (1, 'far off')]


def test_of_labels_the_log_loss_of_the_known_ones_is_the_error():
  labels = targets.of(Target('multilabel', ('shock', 'sepsis')))
  predicted = np.array([[0.9, 0.5], [0.6, 0.1], [0.2, 0.9]])
  true = np.array([[1.0, np.nan], [1.0, 0.0], [1.0, 0.0]])
  assert choose_samples(predicted, true, 2, labels) == [(0, 'close'), (2, 'far off')]
