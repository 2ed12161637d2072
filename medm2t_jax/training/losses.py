"""The loss of a stage, and the one place where losses of units are reduced.

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
    each: unreduced loss of units: outputs (u c), label (u) or (u l) -> (u).
    weigh: label (u) or (u l), weight (u) -> weight (u) multiplied by the class weights.
  """

  each: Loss
  weigh: Callable[[Array, Float[Array, ' u']], Float[Array, ' u']] = unweighted


def make_loss(recipe: Recipe, target: Target) -> StageLoss:
  """The loss of a stage.

  Args:
    recipe: of the stage.
    target: of the data set; it must fit the recipe (`validation.require_recipe`).
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
  """The loss of each unit over the members of an ensemble and the deep network.

  Every head has its own loss. All members together count as much as the deep network.

  Args:
    loss: unreduced.
    heads: outputs of the members, followed by those of the deep network, if there is one.
    label: of the units, (u) or (u l).
    members: number of heads that are ensemble members.
  """
  found = jax.vmap(loss, in_axes=(0, None))(heads, label)
  parts = [jnp.mean(found[:members], axis=0), *found[members:]]
  return jnp.mean(jnp.stack(parts), axis=0)


def weighted_sum(
  loss: Float[Array, ' u'], weight: Float[Array, ' u']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Sum of weighted losses and sum of weights; their ratio is the mean loss.

  Args:
    loss: unreduced; any finite value is allowed where `weight` is 0.
    weight: 0 for padding and absent predictions.
  """
  return jnp.sum(jnp.where(weight > 0, loss, 0.0) * weight), jnp.sum(weight)
