"""Exports a trained model for programs that have only JAX and NumPy.

  python -m medm2t_jax.export --model=BUNDLE --out=DIR

DIR gets one program per bucket, with the weights inside, for CPUs, CUDA and TPUs, and
`manifest.json`, which describes inputs and outputs (docs/trained_model.md, "Export"). The
last line on stdout is one JSON object.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from medm2t_jax import command_line
from medm2t_jax.runs.hosts import start_up

_MODEL = flags.DEFINE_string(
  'model', None, 'A bundle, for example runs/first/fold0/model.', required=True
)
_OUT = flags.DEFINE_string('out', None, 'Folder of the export.', required=True)


@command_line.command
def main(_: list[str]) -> None:
  """Exports the bundle and prints a summary of the manifest."""
  # Imported here so that --help and wrong flags answer at once.
  from medm2t_jax.inference import exporting
  from medm2t_jax.inference.trained_model import TrainedModel

  start_up.start_without_data_sets()
  out = Path(_OUT.value)
  manifest = exporting.export_model(TrainedModel.load(Path(_MODEL.value)), out)
  names = ('task', 'bundle_version', 'platforms', 'readable')
  summary = {name: manifest[name] for name in names}
  print(json.dumps({**summary, 'programs': len(manifest['programs']), 'export': str(out)}))


if __name__ == '__main__':
  command_line.run(main)
