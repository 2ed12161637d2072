"""Optimizer of a stage: schedule, clipping, weight decay, frozen paths, averaging.

All of it is optax, chosen by name in a stage's recipe (`configs.common.stage`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from data_pipeline.schema import DataError
from medm2t_jax.models.batch_norm import MOMENTUM

# Weight decay in the gradient, as torch.optim.Adam and SGD have it.
_COUPLED = {'adam': optax.adam, 'sgd': optax.sgd}
# Weight decay beside the gradient's step.
_DECOUPLED = {'adamw': optax.adamw, 'lamb': optax.lamb, 'lion': optax.lion}
_SCHEDULES = ('constant', 'cosine', 'linear')


def make_optimizer(
  recipe: Mapping[str, Any], stage: str, steps: int
) -> optax.GradientTransformation:
  """The optimizer of a stage.

  Args:
    recipe: `configs.common.stage(...)`.
    stage: for messages.
    steps: planned updates of the whole stage, over which a schedule extends.

  Raises:
    DataError: an unknown name or a number out of range; from its `init`: a frozen path
      that no parameter has.
  """
  where = f'config.recipe.{stage}'
  name, decay = recipe['optimizer'], recipe['weight_decay']
  if name not in {**_COUPLED, **_DECOUPLED}:
    raise DataError(
      f'{where}.optimizer={name!r}: known are {", ".join([*_COUPLED, *_DECOUPLED])}'
    )
  if decay < 0 or recipe['clip_norm'] < 0 or not 0 <= recipe['ema_decay'] < 1:
    raise DataError(
      f'{where}: weight_decay and clip_norm are at least 0, ema_decay at least 0 and '
      'below 1'
    )
  rate = learning_rate(recipe, stage, steps)
  parts = []
  if recipe['clip_norm']:
    parts.append(optax.clip_by_global_norm(recipe['clip_norm']))
  if name in _DECOUPLED:
    parts.append(_DECOUPLED[name](rate, weight_decay=decay))
  else:
    if decay:
      parts.append(optax.add_decayed_weights(decay))
    parts.append(_COUPLED[name](rate))
  optimizer = optax.chain(*parts)
  if recipe['frozen']:
    # Frozen gradients have no part in the norm that is clipped either.
    optimizer = optax.partition(
      {'trained': optimizer, 'frozen': optax.set_to_zero()},
      _frozen_labels(tuple(recipe['frozen']), where),
    )
  return averaged(optimizer, recipe['ema_decay']) if recipe['ema_decay'] else optimizer


def learning_rate(recipe: Mapping[str, Any], stage: str, steps: int) -> optax.Schedule:
  """Learning rate of each update of a stage.

  A linear warm-up from 0 over `warmup_steps`, then 'constant', or a 'cosine' or
  'linear' decay to `final_fraction` of the rate at the last of `steps`.

  Raises:
    DataError: an unknown schedule, or numbers that do not suit.
  """
  where = f'config.recipe.{stage}'
  peak, warmup = recipe['learning_rate'], recipe['warmup_steps']
  schedule, final = recipe['schedule'], recipe['final_fraction']
  if schedule not in _SCHEDULES:
    raise DataError(
      f'{where}.schedule={schedule!r}: known are {", ".join(_SCHEDULES)}, each with '
      'warmup_steps'
    )
  if not 0 <= warmup < steps or not 0 <= final <= 1:
    raise DataError(
      f'{where}: warmup_steps={warmup} is at least 0 and below the {steps} steps of the '
      f'stage, final_fraction={final} from 0 to 1'
    )
  after = {
    'constant': optax.constant_schedule(peak),
    'cosine': optax.cosine_decay_schedule(peak, steps - warmup, alpha=final),
    'linear': optax.linear_schedule(peak, peak * final, steps - warmup),
  }[schedule]
  if not warmup:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def without_frozen_gradients(params: Any, frozen: Sequence[str]) -> Any:
  """The parameters; those under a `frozen` path are constants to a gradient.

  What led to such a gradient alone is not computed.
  """
  if not frozen:
    return params
  stop = lambda held, leaf: jax.lax.stop_gradient(leaf) if held else leaf
  return jax.tree.map(stop, _is_frozen(params, frozen), params)


def _is_frozen(params: Any, frozen: Sequence[str]) -> Any:
  """A tree of bool: whether one of the paths `frozen` leads to a parameter."""
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


class Averaged(NamedTuple):
  """State of `averaged`.

  Attributes:
    count: updates made.
    decay: of the last update.
    trained: the parameters that the inner optimizer moves.
    inner: its state.
  """

  count: Int[Array, '']
  decay: Float[Array, '']
  trained: optax.Params
  inner: optax.OptState


def averaged(
  inner: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
  """Exponential moving average of the parameters that `inner` trains.

  The average takes the place of the parameters: validation, checkpoints and the stages
  that start from them see nothing else. The trained parameters live in this optimizer's
  state (`trained_parameters`): gradients are taken there. The decay of update t is
  min(decay, (1 + t) / (10 + t)), so that the average leaves the start early
  (TensorFlow's ExponentialMovingAverage with `num_updates`).
  """

  def init(params: optax.Params) -> Averaged:
    zero = jnp.zeros((), jnp.int32)
    # A copy: a step donates its buffers, and none may be donated twice.
    trained = jax.tree.map(jnp.copy, params)
    return Averaged(zero, jnp.zeros((), jnp.float32), trained, inner.init(params))

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, Averaged]:
    assert isinstance(state, Averaged)
    moves, inner_state = inner.update(updates, state.inner, state.trained)
    trained = optax.apply_updates(state.trained, moves)
    count = state.count + 1
    now = jnp.minimum(decay, (1 + count) / (10 + count)).astype(jnp.float32)
    towards = lambda new, average: (1 - now) * (new - average)
    change = jax.tree.map(towards, trained, params)
    return change, Averaged(count, now, trained, inner_state)

  return optax.GradientTransformation(init, update)


def trained_parameters(params: optax.Params, state: optax.OptState) -> optax.Params:
  """The parameters at which the gradient is taken: `params`, or what they average."""
  return state.trained if isinstance(state, Averaged) else params


def averaged_statistics(old: Any, new: Any, state: optax.OptState) -> Any:
  """BatchNorm's running statistics to go with the parameters.

  Those of averaged parameters are averaged with the same decay: they take from this
  batch what the parameters take from this update.

  Args:
    old: `batch_stats` before the step.
    new: after it, moved by BatchNorm's own momentum.
    state: of the optimizer, after its update.
  """
  if not isinstance(state, Averaged):
    return new
  share = (1 - state.decay) / (1 - MOMENTUM)
  return jax.tree.map(lambda before, after: before + share * (after - before), old, new)
