"""Writes the page of one patient: the prediction, its history and what it depends on.

  python -m medm2t_jax.explore --model=BUNDLE --data=DIR --sample=ID --out=FILE.html

The page is a single file, works offline, and contains no identifiers unless `--identify` is
given (docs/explorer.md). The last line on stdout is one JSON object.
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
_SAMPLE = flags.DEFINE_integer(
  'sample', None, 'The sample_id, from index.parquet of the data set.', required=True
)
_OUT = flags.DEFINE_string('out', None, 'HTML file of the page.', required=True)
_IDENTIFY = flags.DEFINE_boolean(
  'identify', False, 'Show sample, subject and prediction time on the page.'
)


@command_line.command
def main(_: list[str]) -> None:
  """Writes the page of one sample and prints its prediction."""
  # Imported here so that --help and wrong flags answer at once.
  from data_pipeline.format.atomic import write_text
  from data_pipeline.format.dataset import open_dataset
  from data_pipeline.reading import one_sample
  from medm2t_jax.inference.attribution.explainer import Explainer
  from medm2t_jax.inference.trained_model import TrainedModel
  from medm2t_jax.serving.explorer.of_dataset import identity_of, notes_of
  from medm2t_jax.serving.explorer.page import page
  from medm2t_jax.serving.explorer.story import Identity, StoryTeller

  start_up.start()
  out = Path(_OUT.value)
  model = TrainedModel.load(Path(_MODEL.value))
  dataset = open_dataset(Path(_DATA.value))
  row = one_sample.row_of(dataset, _SAMPLE.value)
  example = one_sample.sample_of(dataset, model.schema, row)
  notes = notes_of(model, dataset, row)
  identity = identity_of(dataset, row) if _IDENTIFY.value else Identity()
  story = StoryTeller(model, Explainer(model)).tell(example, identity, notes)
  out.parent.mkdir(parents=True, exist_ok=True)
  write_text(out, page(story))
  headline = story['outputs'][story['headline']]
  summary = {'task': model.schema.task, 'output': headline['name'], 'page': str(out)}
  print(json.dumps({**summary, 'prediction': headline['values'][-1]}))


if __name__ == '__main__':
  command_line.run(main)
