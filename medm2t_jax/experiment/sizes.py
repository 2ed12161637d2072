"""Named sizes: widths of everything but the encoders, for every task (paper, Table B1).

'paper' follows Table B1; 'small' has at most 5 million parameters and is quick on two CPU
cores; 'base' has the encoders of 'small', with a wider head and trunk; 'tiny' is 'small'
with one residual unit for the ECG, to show that everything runs. The sizes of each
modality's encoder are in `medm2t_jax.modalities`.
"""

from __future__ import annotations

import dataclasses

from medm2t_jax.models.options import Size

# Tasks for which the paper gives sizes; all others use those of 'mortality'.
TASKS = ('cvd', 'mortality', 'los')
_SIZES_OF = {'cvd_all': 'cvd'}  # the same inputs


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Widths of one task at one size.

  Attributes:
    of_task: task of the paper whose encoder sizes are used.
    width: of the space that all modalities share.
    heads: of the attention between modalities.
    trunk: width of the ensemble trunk.
  """

  of_task: str
  width: int
  heads: int
  trunk: int


def sizes(name: Size, task: str) -> Sizes:
  """Sizes of a task.

  Args:
    name: of the size.
    task: any task.
  """
  task = _SIZES_OF.get(task, task if task in TASKS else 'mortality')
  if name == 'paper':
    return Sizes(task, width=512, heads=64, trunk=256)
  if name == 'base':
    return Sizes(task, width=192, heads=24, trunk=256)
  return Sizes(task, width=64, heads=8, trunk=128)
