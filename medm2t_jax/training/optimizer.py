"""Optimizer of a stage: schedule, clipping, weight decay, frozen paths, averaging.

Everything is built from optax; a stage's recipe (`configs.common.stage`) chooses by name.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import Recipe
from medm2t_jax.models.layers.batch_norm import MOMENTUM

# Weight decay is added to the gradient, as in torch.optim.Adam and SGD.
COUPLED = {'adam': optax.adam, 'sgd': optax.sgd}
# Decoupled weight decay.
DECOUPLED = {'adamw': optax.adamw}
# Parts of the names of two-dimensional parameters that are not matrices.
_NO_MATRIX = ('scale', 'bias', 'absent', 'log_weights')


def make_optimizer(recipe: Recipe, stage: str, steps: int) -> optax.GradientTransformation:
  """The optimizer of a stage.

  Args:
    recipe: of the stage.
    stage: for messages.
    steps: planned updates of the whole stage: the length of the schedule.

  Raises:
    DataError: raised by the optimizer's `init` if no parameter has a frozen path.
  """
  name, decay = recipe.optimizer, recipe.weight_decay
  mask = matrices if recipe.decayed == 'matrices' else None
  parts = []
  if recipe.clip_norm:
    parts.append(optax.clip_by_global_norm(recipe.clip_norm))
  if name in DECOUPLED:
    parts.append(promoting(DECOUPLED[name](1.0, weight_decay=decay, mask=mask)))
  else:
    if decay:
      parts.append(optax.add_decayed_weights(decay, mask))
    parts.append(promoting(COUPLED[name](1.0)))
  optimizer = optax.chain(*parts, _scheduled(recipe, steps))
  if recipe.frozen:
    # Frozen gradients do not count in the clipped norm either.
    optimizer = optax.partition(
      {'trained': optimizer, 'frozen': optax.set_to_zero()},
      _frozen_labels(recipe.frozen, f'config.recipe.{stage}'),
    )
  return optimizer


def promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """The same where JAX promotes no dtype by itself: Adam raises a float to a count."""

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    with jax.numpy_dtype_promotion('standard'):
      return inner.update(updates, state, params)

  return optax.GradientTransformation(inner.init, update)


def matrices(params: Any) -> Any:
  """A tree of bool: which parameters are matrices or tables.

  Biases and scales that each ensemble member has of its own do not count as matrices.
  """

  def is_matrix(path: tuple[Any, ...], leaf: Array) -> bool:
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return leaf.ndim > 1 and not any(part in name for part in _NO_MATRIX)

  return jax.tree_util.tree_map_with_path(is_matrix, params)


def learning_rate(
  recipe: Recipe,
) -> Callable[[Int[Array, ''], Int[Array, '']], Float[Array, '']]:
  """Learning rate of an update: `(updates before it, all updates) -> rate`.

  A linear warm-up from 0 over the share `warmup` of the updates, then 'constant', or
  'cosine' down to 0 at the last update.
  """
  peak, share = recipe.learning_rate, recipe.warmup

  def rate(count: Int[Array, ''], steps: Int[Array, '']) -> Float[Array, '']:
    now, end = (each.astype(jnp.float32) for each in (count, steps))
    warmup = jnp.floor(share * end)
    done = jnp.clip((now - warmup) / (end - warmup), 0.0, 1.0)
    left = {
      'constant': lambda: jnp.ones_like(done),
      'cosine': lambda: 0.5 * (1 + jnp.cos(jnp.pi * done)),
    }[recipe.schedule]()
    rising = jnp.where(now < warmup, now / jnp.maximum(warmup, 1.0), 1.0)
    return peak * rising * left

  return rate


class Scheduled(NamedTuple):
  """State of `_scheduled`.

  Attributes:
    count: updates made.
    steps: planned updates of the whole stage.
  """

  # As optax names it in its own states, and in every checkpoint.
  count: Int[Array, '']  # pyright: ignore[reportIncompatibleMethodOverride]
  steps: Int[Array, '']


def _scheduled(recipe: Recipe, steps: int) -> optax.GradientTransformation:
  """Multiplies updates of rate 1 by the learning rate.

  The number of steps is part of the state, so that folds and runs with different numbers of
  steps share one compiled update.
  """
  rate = learning_rate(recipe)

  def init(params: optax.Params) -> Scheduled:
    del params
    return Scheduled(jnp.zeros((), jnp.int32), jnp.asarray(steps, jnp.int32))

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, Scheduled]:
    del params
    assert isinstance(state, Scheduled)
    now = rate(state.count, state.steps)
    scaled = jax.tree.map(lambda x: x * now.astype(x.dtype), updates)
    return scaled, Scheduled(state.count + 1, state.steps)

  return optax.GradientTransformation(init, update)


def without_frozen_gradients(params: Any, frozen: Sequence[str]) -> Any:
  """The parameters, with those under a `frozen` path as constants for the gradient.

  Activations that only such a gradient needs are not computed.
  """
  if not frozen:
    return params
  stop = lambda held, leaf: jax.lax.stop_gradient(leaf) if held else leaf
  return jax.tree.map(stop, _is_frozen(params, frozen), params)


def _is_frozen(params: Any, frozen: Sequence[str]) -> Any:
  """A tree of bool: whether a parameter is under one of the paths `frozen`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: any(_is_under(prefix, path) for prefix in frozen), params
  )


def _is_under(prefix: str, path: tuple[Any, ...]) -> bool:
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  return fnmatch.fnmatchcase(f'{name}/', f'{prefix}/*')


def _frozen_labels(frozen: Sequence[str], where: str) -> Callable[[Any], Any]:
  """A function from parameters to a tree of 'frozen' and 'trained'."""

  def labels(params: Any) -> Any:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for prefix in frozen:
      if not any(_is_under(prefix, path) for path in paths):
        known = sorted({jax.tree_util.keystr(path[:1], simple=True) for path in paths})
        raise DataError(
          f'{where}.frozen: no parameter of this stage is under {prefix!r}; it has {known}'
        )
    held = _is_frozen(params, frozen)
    return jax.tree.map(lambda frozen: 'frozen' if frozen else 'trained', held)

  return labels


def decay_of_update(decay: float, update: Int[Array, '']) -> Float[Array, '']:
  """Decay of the moving average at an update, counted from 1.

  min(decay, (1 + t) / (10 + t)): the average moves away from the start early (TensorFlow's
  ExponentialMovingAverage with `num_updates`).
  """
  return jnp.minimum(decay, (1 + update) / (10 + update)).astype(jnp.float32)


def averaged(average: Any, params: Any, decay: Float[Array, '']) -> Any:
  """The moving average after an update that produced `params`."""
  towards = lambda old, new: (1 - decay) * (new - old)
  return optax.apply_updates(average, jax.tree.map(towards, average, params))


def averaged_statistics(old: Any, new: Any, decay: Float[Array, '']) -> Any:
  """BatchNorm's running statistics for the averaged parameters.

  They use the decay of the parameters' average: this batch has the same share in them as
  this update has in the parameters.

  Args:
    old: `batch_stats` before the step.
    new: after it, updated with BatchNorm's own momentum.
    decay: of this update.
  """
  share = (1 - decay) / (1 - MOMENTUM)
  return jax.tree.map(lambda before, after: before + share * (after - before), old, new)
