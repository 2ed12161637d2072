"""Pictures of attributions: units of time that fit, and the numbers behind them."""

from __future__ import annotations

import numpy as np
import pytest

from medm2t_jax.evaluation.explain import explanation_plots
from medm2t_jax.evaluation.explain.explanation import Attention
from medm2t_jax.modalities.shown import Recording
from medm2t_jax.modalities.windows import token_names


@pytest.mark.parametrize(
  ('hours', 'unit', 'first'),
  [
    ((-24.0, -1.0), 'Hours', -24),
    ((-240.0, -1.0), 'Days', -10),
    ((-17532.0, -1.0), 'Years', -2),
  ],
)
def test_a_course_has_the_unit_of_its_extent(hours, unit, first):
  picture = explanation_plots.course(
    'Lactate', 'mmol/L', np.array(hours), np.array([2.0, 4.0]), np.array([0.1, -0.2])
  )
  title = f'{unit} relative to the prediction'
  assert picture.numbers is not None
  assert picture.numbers.header == (title, 'Lactate (mmol/L)', 'Attribution')
  assert picture.numbers.rows[0] == (str(first), '2', '0.1')


def test_windows_of_years_are_named_in_years():
  years = np.array([-2.0, -0.5]) * 365.25 * 24
  names = token_names({'time_cuts': years})
  assert names == ['up to −2 years', '−2 to −0.5 years', 'after −0.5 years']
  assert token_names({'time_cuts': [-3.0]}) == ['up to −3 h', 'after −3 h']


def test_bars_and_weights_have_their_numbers():
  bars = explanation_plots.bars(['Age', 'pH'], [0.5, -0.25], [1.0, None], 'Attribution')
  assert bars.numbers is not None
  assert bars.numbers.rows == [('Age', '0.5'), ('pH', '-0.25')]
  look = Attention('labs', 'ecg', ['−2 h', '−1 h'], np.array([0.75, 0.25]))
  weights = explanation_plots.attention('labs', [look]).numbers
  assert weights is not None
  assert weights.header == ('', '−2 h', '−1 h')
  assert weights.rows == [('by ecg', '0.75', '0.25')]


def test_a_recording_has_its_signals_and_what_shades_them():
  signal = np.arange(20.0).reshape(10, 2)
  recording = Recording(
    hours=-1.0, recordings=1, signal=signal, leads=('I', 'II'), rate=20.0,
    attributions=np.ones((10, 2)), all_signals=20.0, findings=[],
  )  # fmt: skip
  numbers = explanation_plots.strip(recording).numbers
  assert numbers is not None and len(numbers.rows) == 10
  assert numbers.header[:3] == ['Seconds', 'I (mV)', 'II (mV)']
  assert numbers.rows[0] == ('0', '0', '1', '4', '4')
  assert numbers.rows[1] == ('0.05', '2', '3', '', '')
  assert numbers.rows[8] == ('0.4', '16', '17', '2', '2')
