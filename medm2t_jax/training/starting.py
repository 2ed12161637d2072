"""The parameters that a stage starts from, and those that it trains."""

from __future__ import annotations

import fnmatch
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import fingerprint
from medm2t_jax.experiment import Recipe, validation
from medm2t_jax.models import medm2t
from medm2t_jax.runs import checkpoint
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.hosts import devices
from medm2t_jax.runs.restoring import lineage_of, restore_best
from medm2t_jax.runs.run import Run, was_skipped
from medm2t_jax.runs.train_state import TrainState


def recipe_of(fold: Run, stage: str) -> Recipe:
  """The recipe of a stage.

  When training starts from a bundle, the learning rate is multiplied by
  `config.adapt_rate`, and with `config.adapt='head'` only output layers are trained.

  Raises:
    DataError: the experiment has no recipe for the stage.
  """
  recipe = validation.recipe_of(fold.config, fold.model_config.stages[stage])
  if fold.start is None:
    return recipe
  changes: dict[str, Any] = {'learning_rate': recipe.learning_rate * fold.config.adapt_rate}
  if fold.config.adapt == 'all':
    return recipe.changed(changes)
  paths = traverse_util.flatten_dict(initial.shapes(fold, stage)['params'])
  changes['frozen'] = tuple('/'.join(path) for path in paths if not medm2t.is_head(path))
  return recipe.changed(changes)


def sources_of(fold: Run, stage: str) -> tuple[str, ...]:
  """The stages of the model that a stage continues from, in training order.

  If the multimodal stage continues from any stage, it also continues from those of
  modalities without their own recipe, because no config can list them by name.
  """
  patterns = recipe_of(fold, stage).starts_from
  named = lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
  entry = lambda name: validation.entry_of(fold.config, fold.stages[name])
  unnamed = lambda name: bool(patterns) and entry(name) not in (None, name)
  multimodal = fold.stages[stage].modality is None
  return tuple(
    name
    for name, each in fold.stages.items()
    if named(name) or (multimodal and each.of_samples and name != stage and unnamed(name))
  )


def require_new_subjects(fold: Run) -> None:
  """Raises if the bundle was trained on validation or test subjects of the fold.

  Subjects of another institution have hashes with another key, so this cannot be checked
  for them.

  Raises:
    DataError: it was.
  """
  if fold.start is None:
    return
  seen = fold.start.seen_by(fingerprint(fold.dataset.subject_key))
  for split in ('validation', 'test'):
    count = len(seen & fold.splits.subject_hashes(split))
    if count:
      raise DataError(
        f'config.start_from={fold.config.start_from}: the model was trained on {count} '
        f'{split} subjects of fold {fold.fold}. Use data of other subjects, or splits '
        '(config.data.split_file) that have them in training.'
      )


def initial_state(
  fold: Run, stage: str, optimizer: optax.GradientTransformation
) -> tuple[TrainState, checkpoint.Lineage]:
  """Fresh variables, with every path replaced that the sources of the stage have.

  The sources are first the bundle, if there is one, and then the stages that the recipe
  names.

  Raises:
    DataError: such a stage is not complete, or its checkpoint must not be used here.
  """
  lineage = lineage_of(fold)
  given: dict[tuple[str, ...], Any] = fold.start.parameters() if fold.start else {}
  weights: dict[str, Any] = {}
  recipe = recipe_of(fold, stage)
  for source in sources_of(fold, stage):
    if was_skipped(fold, source):
      continue  # the data set does not have that modality
    restored, seen = restore_best(fold, source)
    lineage = lineage.joined(seen)
    given |= {
      path: value
      for path, value in traverse_util.flatten_dict(restored).items()
      if path[0] != 'fitted'
    }
    # Fitted on validation subjects after that stage was trained.
    weights |= {f'additions_{source}': restored['fitted'].get(f'additions_{source}')}
  variables = initial.init(fold, stage, given)
  if fold.start:
    variables['fitted'] = fold.start.fitted(variables['fitted'])
  variables['fitted'] |= {
    path: found for path, found in weights.items() if path in variables['fitted']
  }
  return placed_state(variables, optimizer, recipe), lineage


def placed_state(
  variables: dict[str, Any], optimizer: optax.GradientTransformation, recipe: Recipe
) -> TrainState:
  """The state before the first step, placed on the devices as the step returns it."""
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    fitted=variables['fitted'],
    optimizer=optimizer.init(variables['params']),
    # A copy, because a step donates its buffers and none may be donated twice.
    averaged=jax.tree.map(jnp.copy, variables['params']) if recipe.ema_decay else (),
  )
  # Otherwise the first call would compile separately.
  return jax.device_put(state, devices.replicated())
