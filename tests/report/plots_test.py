"""Pictures with names as long as those of the conditions of task phenotypes."""

from __future__ import annotations

import numpy as np
import pytest

from medm2t_jax.report import plots
from medm2t_jax.report.text import shortened

NAMES = [
  f'{name} (except that caused by tuberculosis or sexually transmitted disease)'
  for name in ('Pneumonia', 'Septicemia', 'Shock', 'Respiratory failure', 'Dysrhythmias')
]


@pytest.mark.parametrize('kind', ['roc', 'precision_recall', 'score_distribution'])
def test_long_names_leave_room_for_what_is_drawn(kind):
  """Matplotlib warns, which is an error here, where its layout finds no room."""
  line = np.linspace(0, 1, 20)
  if kind == 'score_distribution':
    drawn = plots.score_distribution(line, line > 0.5, np.ones(20), NAMES[0])
    columns = [f'not {NAMES[0]} (n = 10)', f'{NAMES[0]} (n = 10)']
  elif kind == 'roc':
    drawn, columns = plots.roc({name: (line, line**0.5) for name in NAMES}), NAMES
  else:
    curves = {name: (line, 1 - line, 0.2) for name in NAMES}
    drawn, columns = plots.precision_recall(curves), NAMES
  # The numbers and the description have the whole names.
  assert NAMES[0] in drawn.alt
  told = repr(drawn.numbers)
  assert all(name in told for name in columns)


def test_the_number_of_samples_stays():
  assert shortened('Shock (n = 1,205)', 17) == 'Shock (n = 1,205)'
  assert shortened('Septic shock (n = 1,205)', 17) == 'Sept… (n = 1,205)'
  assert shortened('Disorders of lipid metabolism', 12) == 'Disorders o…'
