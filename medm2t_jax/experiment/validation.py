"""Checks that an experiment fits a data set, once, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from data_pipeline.format.options import nearest
from data_pipeline.format.schema import NUM_FOLDS, DataError, Target
from medm2t_jax import targets
from medm2t_jax.experiment.options import Experiment, Recipe
from medm2t_jax.models.modality import Stage

ALL = 'all'
# What the best epoch may be chosen by, besides the metrics of a target.
LOSS, LAST = 'loss', 'last'  # 'last' chooses nothing: the last epoch is the best


def require_suits(
  experiment: Experiment, target: Target, stages: Mapping[str, Stage]
) -> None:
  """Raises if the data set does not allow the experiment's folds, stages or recipes.

  Args:
    experiment: with values that are valid by their types.
    target: of the data set.
    stages: name -> stage of the model, in order.

  Raises:
    DataError: a fold or stage is unknown, a stage has no recipe, or a recipe does not fit
      the target.
  """
  folds_of(experiment)
  for name in stages_of(experiment, stages):
    require_recipe(recipe_of(experiment, stages[name]), target, name)


def folds_of(experiment: Experiment) -> tuple[int, ...]:
  """The folds to run, ascending.

  Raises:
    DataError: `config.folds` is neither 'all' nor a list such as '1,3' of known ones.
  """
  known = tuple(range(NUM_FOLDS))
  text = experiment.folds
  if text == ALL:
    return known
  folds = tuple(int(part) if part.isdecimal() else -1 for part in text.split(','))
  if not set(folds) <= set(known):
    raise DataError(
      f"config.folds={text!r}: give 'all' or a comma-separated list of {known}"
    )
  return tuple(sorted(set(folds)))


def stages_of(experiment: Experiment, known: Mapping[str, Stage]) -> tuple[str, ...]:
  """The stages to train, in training order.

  Raises:
    DataError: `config.stages` names a stage that the task and data set do not have.
  """
  if experiment.stages == ALL:
    return tuple(known)
  names = experiment.stages.split(',')
  for name in names:
    if name not in known:
      raise DataError(
        f'config.stages={experiment.stages!r}: unknown {name!r}{nearest(name, known)}'
      )
  return tuple(stage for stage in known if stage in names)


def entry_of(experiment: Experiment, stage: Stage) -> str | None:
  """The entry of `config.recipe` that applies to a stage; None if there is none.

  A stage without its own entry uses the entry of its kind (`Stage.recipes`): segments of
  any length that of the grid's segments, a modality unknown to the config that of events.
  """
  return next((name for name in stage.recipes if name in experiment.recipe), None)


def recipe_of(experiment: Experiment, stage: Stage) -> Recipe:
  """The recipe of a stage.

  Raises:
    DataError: the experiment has none.
  """
  entry = entry_of(experiment, stage)
  if entry is None:
    raise DataError(
      f'config.recipe has no entry for the stage {stage.name!r}: give one of '
      f'{", ".join(stage.recipes)}.'
    )
  return experiment.recipe[entry]


def require_recipe(recipe: Recipe, target: Target, stage: str) -> None:
  """Raises if a recipe does not fit a target.

  Args:
    recipe: of the stage.
    target: of the data set.
    stage: its name, for messages.

  Raises:
    DataError: the target does not allow the loss, class weights or metric.
  """
  where, kind = f'config.recipe.{stage}', targets.of(target)
  if recipe.loss and recipe.loss not in kind.losses:
    raise DataError(
      f'{where}.loss={recipe.loss!r} is not for this task'
      f'{nearest(recipe.loss, kind.losses)}'
    )
  kind.check_weights(recipe.class_weights, where)
  if recipe.prior_correction and (
    loss_name(recipe, target) != 'nll' or not recipe.class_weights
  ):
    raise DataError(
      f"{where}.prior_correction corrects loss='nll' for class_weights; here loss="
      f'{recipe.loss!r}, class_weights={recipe.class_weights}'
    )
  known = (LOSS, *kind.selection_metrics, LAST)
  if recipe.select_by not in known:
    raise DataError(
      f'{where}.select_by={recipe.select_by!r} is not for this task'
      f'{nearest(recipe.select_by, known)}'
    )


def loss_name(recipe: Recipe, target: Target) -> str:
  """The loss of a recipe; if empty, the default loss of the target."""
  return recipe.loss or next(iter(targets.of(target).losses))
