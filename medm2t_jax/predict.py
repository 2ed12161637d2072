"""Predicts the samples of a prepared data set with a trained model.

  python -m medm2t_jax.predict --model=BUNDLE --data=DIR --out=FILE.parquet

DIR may hold any data set of the model's task, from any source and of any version: variables
are matched by code and unit. `coverage.json` beside FILE lists which variables were found,
and in how many samples. Subjects that the model was trained on are left out. The last line
on stdout is one JSON object.
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
_DATA = flags.DEFINE_string('data', None, 'Folder of a prepared data set.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Parquet file of the predictions.', required=True)
_FORMAT = flags.DEFINE_enum(
    'format', 'table', ('table', 'meds'),
    'table: one column per class, or the predicted number; meds: the columns of '
    'meds-evaluation, for tasks of two classes.',
)  # fmt: skip
_MIN_COVERAGE = flags.DEFINE_float(
  'min_coverage',
  0.5,
  'Smallest coverage: the share of the variables in the training samples that the data '
  'must have.',
  lower_bound=0.0,
  upper_bound=1.0,
)
_ALLOW_SEEN = flags.DEFINE_boolean(
  'allow_seen', False, 'Also predict subjects that the model was trained on.'
)
_REPORT = flags.DEFINE_boolean(
  'report',
  False,
  'Also write report.html and metrics.json beside FILE; the data must have labels.',
)
_CHECK = flags.DEFINE_boolean('check', True, "Run the model's self-test before predicting.")


@command_line.command
def main(_: list[str]) -> None:
  """Predicts the data set, writes all files and prints a summary."""
  # Imported here so that --help and wrong flags answer at once.
  from data_pipeline.format.atomic import write_text
  from data_pipeline.format.dataset import open_dataset
  from data_pipeline.format.schema import write_json
  from medm2t_jax.inference import predicting, tables
  from medm2t_jax.inference.trained_model import TrainedModel

  start_up.start()
  out = Path(_OUT.value)
  model = TrainedModel.load(Path(_MODEL.value))
  dataset = open_dataset(Path(_DATA.value))
  write = tables.writer(_FORMAT.value, model.schema)
  if _CHECK.value:
    model.check()
  predicted = predicting.predict(model, dataset, allow_seen=_ALLOW_SEEN.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  # Written even if coverage is too low, so that the user can see why.
  write_json(out.with_name('coverage.json'), predicted.coverage)
  predicting.require_coverage(predicted, _MIN_COVERAGE.value, dataset.directory)
  write(out, dataset, predicted)
  files = {'predictions': out, 'coverage_table': out.with_name('coverage.json')}
  if _REPORT.value:
    from medm2t_jax.evaluation import external  # imports matplotlib

    result = external.compute(model, dataset, predicted)
    files |= {'report': out.with_name('report.html')}
    files |= {'metrics': out.with_name('metrics.json')}
    write_json(files['metrics'], result)
    write_text(files['report'], external.render(result))
  coverage = predicted.coverage
  summary = {
    name: coverage[name] for name in ('samples', 'left_out', 'coverage', 'overlap')
  }
  written = {name: str(path) for name, path in files.items()}
  if model.schema.condition:
    summary['condition'] = model.schema.condition
  print(json.dumps({'task': model.schema.task, **summary, **written}))


if __name__ == '__main__':
  command_line.run(main)
