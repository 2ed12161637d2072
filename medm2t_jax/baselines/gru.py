"""A GRU on time windows, with masks and time gaps (inputs of GRU-D, Che et al. 2018).

For each window and level it reads the last known value, whether it was observed in this
window, and the time since the last observation. All other columns (static variables, the
ECG summary) join the last state. Small, on one device.

Letters: b samples, t windows, l levels, s static columns, c outputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from data_pipeline.format.dataset import Split
from medm2t_jax import targets
from medm2t_jax.baselines.inputs import SPLITS, Inputs
from medm2t_jax.baselines.windows import window_ends
from medm2t_jax.models.layers.dropout import Dropout

SETTINGS: dict[str, Any] = {
  'hidden': 64,
  'dropout': 0.3,
  'learning_rate': 2e-3,
  'weight_decay': 1e-3,
  'batch_size': 64,
  'epochs': 40,
  'patience': 5,
  # Limit of standardised values, in standard deviations.
  'clip': 5.0,
}


class Gru(nn.Module):
  """The network.

  Attributes:
    hidden: width of the state.
    outputs: number of classes, or 1.
    ends: end of each window, in hours, ascending to 0.
    dropout: on the last state and in the decoder.
  """

  hidden: int
  outputs: int
  ends: tuple[float, ...]
  dropout: float

  @nn.compact
  def __call__(
    self, windows: Float[Array, 'b t l'], static: Float[Array, 'b s'], *, train: bool
  ) -> Float[Array, 'b c']:
    """Outputs; numbers are standardised.

    Args:
      windows: standardised, NaN where nothing was observed.
      static: standardised, NaN where missing.
      train: whether to use dropout.
    """
    dropout = Dropout(self.dropout)
    drop = lambda x: dropout(x, deterministic=not train)
    state = jnp.zeros((len(windows), 0))
    if windows.shape[2]:
      cell = nn.RNN(nn.GRUCell(self.hidden), return_carry=True, name='gru')
      state, _ = cell(with_gaps(windows, np.asarray(self.ends, np.float32)))
    known = ~jnp.isnan(static)
    joined = [state, jnp.where(known, static, 0.0), known.astype(static.dtype)]
    hidden = nn.Dense(self.hidden, name='joined')(drop(jnp.concatenate(joined, axis=1)))
    return nn.Dense(self.outputs, name='output')(drop(nn.relu(hidden)))


def with_gaps(windows: Float[Array, 'b t l'], ends: np.ndarray) -> Float[Array, 'b t 3*l']:
  """Last known value (0, the mean, before any), observed flag, log hours since, in 0..1.

  Args:
    windows: standardised, float32, NaN where nothing was observed.
    ends: end of each window, in hours, ascending to 0: float32 (t).
  """
  observed = ~jnp.isnan(windows)
  index = jnp.arange(len(ends))[jnp.newaxis, :, jnp.newaxis]
  last = jax.lax.cummax(jnp.where(observed, index, -1), axis=1)
  filled = jnp.take_along_axis(jnp.nan_to_num(windows), jnp.maximum(last, 0), axis=1)
  end = jnp.asarray(ends)
  span = end[-1] - end[0] + 1.0
  gap = jnp.where(last >= 0, end[index] - end[jnp.maximum(last, 0)], span)
  return jnp.concatenate(
    [
      jnp.where(last >= 0, filled, 0.0),
      observed.astype(windows.dtype),
      jnp.log1p(gap) / jnp.log1p(span),
    ],
    axis=2,
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
  """Standardised samples of a split.

  Attributes:
    windows: float32 (n t l), NaN where nothing was observed.
    columns: float32 (n s), NaN where missing.
    label: float32 (n), standardised for numbers, or (n l).
    weight: float32 (n).
  """

  windows: np.ndarray
  columns: np.ndarray
  label: np.ndarray
  weight: np.ndarray

  def steps(self, order: np.ndarray, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of one size in a given order; `weight` is 0 for the padding of the last."""
    for start in range(0, len(order), size):
      chosen = order[start : start + size]
      padded = np.concatenate([chosen, np.full(size - len(chosen), order[0])])
      yield {
        'windows': self.windows[padded],
        'columns': self.columns[padded],
        'label': self.label[padded],
        'weight': np.where(np.arange(size) < len(chosen), self.weight[padded], 0),
      }


def joined(parts: Sequence[Samples]) -> Samples:
  """The samples of several splits with the same scaling."""
  join = lambda name: np.concatenate([getattr(part, name) for part in parts])
  return Samples(*map(join, ('windows', 'columns', 'label', 'weight')))


def standardised(
  inputs: Inputs, fitted_on: Sequence[Split] = ('train',)
) -> dict[Split, Samples]:
  """The splits, standardised with the samples of the splits in `fitted_on`."""
  center, scale = _label_scale(inputs, fitted_on)
  windows = _Scaling.fit(np.concatenate([inputs.windows[split] for split in fitted_on]))
  at_once = [each.name for each in inputs.modalities if not each.windowed]
  columns = {split: inputs.summaries[split].of_modalities(at_once) for split in SPLITS}
  static = _Scaling.fit(np.concatenate([columns[split] for split in fitted_on]))
  return {
    split: Samples(
      windows.apply(inputs.windows[split]),
      static.apply(columns[split]),
      ((inputs.summaries[split].label - center) / scale).astype(np.float32),
      inputs.summaries[split].weight.astype(np.float32),
    )
    for split in SPLITS
  }


def fit_predict(inputs: Inputs) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or numbers (n)."""
  network = Gru(
    SETTINGS['hidden'],
    inputs.target.outputs,
    tuple(window_ends(inputs.schema.observation_hours).tolist()),
    SETTINGS['dropout'],
  )
  training = _Training(network, inputs)
  fitted_on: tuple[Split, ...] = ('train',)
  samples = standardised(inputs, fitted_on)
  params, epochs = training.fit(samples['train'], samples['validation'])
  if inputs.refit:
    fitted_on = ('train', 'validation')
    samples = standardised(inputs, fitted_on)
    params = training.after(joined([samples[split] for split in fitted_on]), epochs)
  outputs = training.outputs(params, samples['test'])
  center, scale = _label_scale(inputs, fitted_on)
  return targets.of(inputs.target).predictions(outputs * scale + center)


def _label_scale(inputs: Inputs, fitted_on: Sequence[Split]) -> tuple[float, float]:
  """Mean and standard deviation of numbers; (0, 1) for classes."""
  if not inputs.target.numeric:
    return 0.0, 1.0
  of = lambda name: [getattr(inputs.summaries[split], name) for split in fitted_on]
  labels, weights = np.concatenate(of('label')), np.concatenate(of('weight'))
  return np.average(labels, weights=weights), labels.std() or 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaling:
  """Mean and standard deviation of the last axis over observed values."""

  mean: np.ndarray
  deviation: np.ndarray

  @classmethod
  def fit(cls, values: np.ndarray) -> _Scaling:
    # Data without any time series leaves no column.
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    known = ~np.isnan(flat)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.sum(flat, axis=0, where=known, dtype=np.float64) / count
    square = np.sum((flat - mean) ** 2, axis=0, where=known, dtype=np.float64) / count
    return cls(mean, np.where(square > 0, np.sqrt(square), 1.0))

  def apply(self, values: np.ndarray) -> np.ndarray:
    scaled = (values - self.mean) / self.deviation
    return np.clip(scaled, -SETTINGS['clip'], SETTINGS['clip']).astype(np.float32)


class _Training:
  """Adam until the validation loss stops improving, or for a number of epochs."""

  def __init__(self, network: Gru, inputs: Inputs):
    self._network = network
    self._inputs = inputs
    self._optimizer = optax.adamw(
      SETTINGS['learning_rate'], weight_decay=SETTINGS['weight_decay']
    )
    self._update = jax.jit(self._one_update)
    self._apply = jax.jit(self._outputs)

  def fit(self, train: Samples, validation: Samples) -> tuple[Any, int]:
    """The best parameters, and the number of epochs after which they were found."""
    epochs = self._epochs(train)
    best, least, chosen = next(epochs), np.inf, 0
    for epoch, params in enumerate(epochs, start=1):
      loss = self._validation_loss(params, validation)
      if loss < least:
        best, least, chosen = params, loss, epoch
      if epoch - chosen == SETTINGS['patience']:
        break
    return best, chosen

  def after(self, train: Samples, epochs: int) -> Any:
    """The parameters after a number of epochs."""
    return next(itertools.islice(self._epochs(train), epochs, None))

  def _epochs(self, train: Samples) -> Iterator[Any]:
    """The parameters at the start, and after each epoch."""
    seed, fold = self._inputs.seed
    key = jax.random.fold_in(jax.random.key(seed, impl='unsafe_rbg'), fold)
    params = self._network.init(key, train.windows[:1], train.columns[:1], train=False)
    params = self._from_prior(params['params'], train)
    state = self._optimizer.init(params)
    yield params
    order = np.random.default_rng((seed, fold))
    for epoch in range(SETTINGS['epochs']):
      steps = train.steps(order.permutation(len(train.label)), SETTINGS['batch_size'])
      for number, batch in enumerate(steps):
        draw = jax.random.fold_in(jax.random.fold_in(key, epoch), number)
        params, state = self._update(params, state, batch, draw)
      yield params

  def _from_prior(self, params: Any, train: Samples) -> Any:
    """Starts at the class shares of the training samples; numbers already have mean 0."""
    if self._inputs.target.numeric:
      return params
    kind = targets.of(self._inputs.target)
    prior = kind.prior(train.label, train.weight).astype(np.float32)
    return {**params, 'output': {**params['output'], 'bias': jnp.asarray(prior)}}

  def _outputs(
    self, params: Any, windows: Array, static: Array, key: jax.Array | None = None
  ) -> Array:
    rngs = None if key is None else {'dropout': key}
    train = key is not None
    outputs = self._network.apply(
      {'params': params}, windows, static, train=train, rngs=rngs
    )
    assert isinstance(outputs, jax.Array)  # no collection is mutable here
    return outputs

  def _one_update(self, params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
    def mean_loss(params):
      outputs = self._outputs(params, batch['windows'], batch['columns'], key)
      each = targets.of(self._inputs.target).loss
      weight = batch['weight']
      return jnp.sum(each(outputs, batch['label']) * weight) / jnp.sum(weight)

    gradients = jax.grad(mean_loss)(params)
    with jax.numpy_dtype_promotion('standard'):  # AdamW raises a float to a count
      updates, state = self._optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  def _validation_loss(self, params: Any, validation: Samples) -> float:
    outputs = self.outputs(params, validation)
    kind = targets.of(self._inputs.target)
    predictions = kind.predictions(outputs)
    return kind.mean_loss(predictions, validation.label, validation.weight)

  def outputs(self, params: Any, samples: Samples) -> np.ndarray:
    """Outputs of all samples, standardised for numbers: float64 (n c)."""
    size = SETTINGS['batch_size']
    order = np.arange(len(samples.label))
    outputs = [
      np.asarray(self._apply(params, batch['windows'], batch['columns']), np.float64)
      for batch in samples.steps(order, size)
    ]
    return np.concatenate(outputs)[: len(order)]
