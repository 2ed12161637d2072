"""Makes one bundle of the trained models of all folds of a workdir.

  python -m medm2t_jax.bundle --workdir=W --out=BUNDLE

The bundle needs neither the workdir nor the data set: copy it to wherever it is used. Its
members are the models of the trained folds, and its predictions are their mean. Use it for
new subjects only: every subject of the data set was in the training data of some member.
The last line on stdout is one JSON object.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from medm2t_jax import command_line
from medm2t_jax.runs.hosts import start_up

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a trained and evaluated run.', required=True
)
_OUT = flags.DEFINE_string('out', None, 'Folder of the bundle.', required=True)


@command_line.command
def main(_: list[str]) -> None:
  """Saves the bundle of a workdir and prints a summary."""
  # Imported here so that --help and wrong flags answer at once.
  from medm2t_jax.inference import bundling

  start_up.start()
  workdir, out = Path(_WORKDIR.value), Path(_OUT.value)
  model = bundling.of_workdir(workdir)
  model.save(out)
  summary = {'task': model.schema.task, 'members': len(model.members), 'bundle': str(out)}
  print(json.dumps(summary))


if __name__ == '__main__':
  command_line.run(main)
