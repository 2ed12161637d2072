"""A prepared data set with static columns alone: stages of it train in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs import mortality
from data_pipeline.format.schema import Item, Target
from data_pipeline.sources import Staged
from medm2t_jax.experiment import Config
from tests.support import kinds, staging_fixture


def build(
  folder: Path,
  *,
  change: Callable[[Path], None] | None = None,
  subjects: int = 60,
  events: tuple[str, ...] = (),
  items: tuple[Item, ...] = (),
  target: Target = staging_fixture.SCHEMA.target,
  task: str = staging_fixture.SCHEMA.task,
) -> Path:
  """Prepares `folder / 'out'`.

  Args:
    folder: exists.
    change: is called with the folder of the staging files before they are read.
    subjects: how many.
    events: event modalities that stay beside the static columns.
    items: of the modality `labs`, where `change` has changed what they are.
    target: of the labels, where `change` has changed what they are.
    task: its name.
  """
  raw = folder / 'raw'
  raw.mkdir()
  staging_fixture.write_staging(raw, subjects=subjects)
  if change is not None:
    change(raw)
  schema = staging_fixture.SCHEMA.only(('static', *events))
  schema = dataclasses.replace(schema, target=target, task=task)
  if items:
    schema = kinds.changed(schema, 'labs', items=items)
  for name in kinds.events(staging_fixture.SCHEMA).keys() - schema.modalities.keys():
    (raw / f'events_{name}.parquet').unlink()
  for path in [*raw.glob('grid_*'), raw / 'recordings.parquet']:
    path.unlink()
  staged = Staged(schema, staging_fixture.COHORT, {'fixture': '1.0'})
  return staging_fixture.build_from(raw, staged, folder / 'out')


def config(data: Path, **recipe: Any) -> Config:
  """Two epochs of the stage `static`, with `recipe` in its recipe; not locked.

  Encoders with plain decoders, no refit, no blend, programs that compile fast.
  """
  made = mortality.get_config('small').unlock()
  made.data.dir = str(data)
  made.data.buckets = ({},)
  made.stages = 'static'
  made.refit = False
  made.blend = ()
  made.model.trunk = 'decoder'
  made.evaluation.batch_size = 16
  quickly_compiled(made)
  for each in made.recipe.values():
    each.update(optimizer='sgd', learning_rate=0.05)
  made.recipe.static.update(batch_size=16, epochs=2)
  made.recipe.static.update(recipe)
  return made


def quickly_compiled(config: Config) -> None:
  """Leaves out what only makes programs longer, where it is not what is tested.

  Statistics of items, clipping, decay and most dropout; of an unlocked config.
  """
  config.model.pooling = 'tokens'
  for name in ('input', 'window', 'shared', 'decoder', 'modality', 'trunk'):
    config.model[f'{name}_dropout'] = 0.0
  for each in config.recipe.values():
    each.update(clip_norm=0.0, weight_decay=0.0)
