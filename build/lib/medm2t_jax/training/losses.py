"""The loss of a stage, and how the losses of units are reduced, in one place.

Dimension letters: u units (samples, recordings or segments), c outputs, l labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.experiment import Recipe
from medm2t_jax.experiment.validation import loss_name
from medm2t_jax.targets.kind import Loss, unweighted


@dataclasses.dataclass(frozen=True)
class StageLoss:
  """What a stage minimises.

  Attributes:
    each: the loss of units, unreduced: outputs (u c), label (u) or (u l) -> (u).
    weigh: label (u) or (u l), weight (u) -> weight (u), with those of classes.
  """

  each: Loss
  weigh: Callable[[Array, Float[Array, ' u']], Float[Array, ' u']] = unweighted


def make_loss(recipe: Recipe, target: Target) -> StageLoss:
  """The loss of a stage.

  Args:
    recipe: of the stage.
    target: of the data set, which the recipe suits (`validation.require_recipe`).
  """
  kind = targets.of(target)
  weights, corrected = recipe.class_weights, recipe.prior_correction
  each = kind.losses[loss_name(recipe, target)](recipe)
  if not weights:
    return StageLoss(each)
  return StageLoss(*kind.weighted(each, weights, prior_correction=corrected))


def of_heads(
  loss: Loss, heads: Float[Array, 'h u c'], label: Array, members: int
) -> Float[Array, ' u']:
  """The loss of each unit: of an ensemble's members, and of a deep network beside them.

  Every head has a loss of its own. Together the members count as much as what stands
  beside them.

  Args:
    loss: unreduced.
    heads: outputs of the members, then those of what is beside them, if anything is.
    label: of the units, (u) or (u l).
    members: how many heads are members of one ensemble.
  """
  found = jax.vmap(loss, in_axes=(0, None))(heads, label)
  parts = [jnp.mean(found[:members], axis=0), *found[members:]]
  return jnp.mean(jnp.stack(parts), axis=0)


def weighted_sum(
  loss: Float[Array, ' u'], weight: Float[Array, ' u']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Sum of weighted losses and sum of weights; their ratio is the mean loss.

  Args:
    loss: unreduced loss; it may be anything finite where `weight` is 0.
    weight: 0 for padding and absent predictions.
  """
  return jnp.sum(jnp.where(weight > 0, loss, 0.0) * weight), jnp.sum(weight)
