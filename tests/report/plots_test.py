"""Pictures with names as long as those of the conditions of task phenotypes."""

from __future__ import annotations

import numpy as np

from medm2t_jax.report import plots
from medm2t_jax.report.text import shortened

NAME = 'Pneumonia (except that caused by tuberculosis or sexually transmitted disease)'


def test_long_names_leave_room_for_what_is_drawn():
  """Matplotlib warns, which is an error here, where its layout finds no room."""
  line = np.linspace(0, 1, 20)
  drawn = plots.score_distribution(line, line > 0.5, np.ones(20), NAME)
  # The description and the numbers have the whole name.
  assert NAME in drawn.alt and drawn.numbers is not None
  named = {row[0] for row in drawn.numbers.rows}
  assert named == {f'not {NAME} (n = 10)', f'{NAME} (n = 10)'}


def test_the_number_of_samples_stays():
  assert shortened('Shock (n = 1,205)', 17) == 'Shock (n = 1,205)'
  assert shortened('Septic shock (n = 1,205)', 17) == 'Sept… (n = 1,205)'
  assert shortened('Disorders of lipid metabolism', 12) == 'Disorders o…'
