"""Integrated gradients of predictions (Sundararajan et al., arXiv 1703.01365).

Event values enter the model through bins, terms through a bag, and neither can be
scaled down. So the path runs over the gates of `medm2t_jax.models.gates`, one per event,
grid cell, static column, ECG sample, measurement and term: all of them from 0 to 1
together. Presence masks, counts and times along the path are those of the full sample:
they decide what the model sees as there, jumping from one to the other. So the path is
continuous, and its start, the baseline, is a sample observed just as much and as often,
whose events are all 'none', whose numbers are medians, and whose ECGs are flat. BatchNorm
uses its running statistics and is affine; the model has kinks (ReLU, max-pooling) and no
jumps, so the attributions sum to f(sample) - f(baseline) up to the quadrature. Kinks lie
close together all along the path, so the rule is the one that suits them: the midpoint
rule with many nodes. A LayerNorm turns its first small step away from the baseline into a
large one, so the nodes are dense there: the place on the path is the square of a uniform
variable (docs/design.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.gates import Gates, open_gates, with_gates
from medm2t_jax.models.medm2t import MedM2T

STEPS = 256  # nodes of the midpoint rule

STAGE = 'multimodal'


class Integrated(NamedTuple):
  """Attributions of one output of every row of a batch.

  Attributes:
    attributions: one per gate, float32, shaped like the gates.
    output: f with all gates open.
    baseline: f with all gates closed.
  """

  attributions: Any
  output: Float[Array, ' b']
  baseline: Float[Array, ' b']


def integrate(
  function: Callable[[Any], Float[Array, ' b']], gates: Any, steps: int = STEPS
) -> Integrated:
  """Integrates the gradient on the straight path from closed to open gates.

  Args:
    function: of a tree of gates, each of which belongs to one row: no row's output may
      depend on another row's gates.
    gates: the tree with every gate open, 1.
    steps: nodes.
  """
  gradient = jax.grad(lambda each: function(each).sum())

  def add(total: Any, root: Array) -> tuple[Any, None]:
    found = gradient(jax.tree.map(lambda gate: root**2 * gate, gates))
    weight = 2 * root / steps  # d(root**2)
    return jax.tree.map(lambda old, new: old + weight * new, total, found), None

  zeros = jax.tree.map(jnp.zeros_like, gates)
  roots = (jnp.arange(steps, dtype=jnp.float32) + 0.5) / steps
  attributions, _ = jax.lax.scan(add, zeros, roots)
  return Integrated(attributions, function(gates), function(zeros))


def explain_step(
  model: MedM2T, kind: Literal['classes', 'days']
) -> Callable[[Mapping[str, Any], Mapping[str, Any], Bool[Array, 'b c']], Integrated]:
  """Returns the compiled `(variables, batch, against_first) -> Integrated`.

  `batch` has no device axis. The explained output of a row is the days, or, of classes,
  the log odds of those where its `against_first` is true, together, against the first
  class.

  Args:
    model: whose parameters will be given; it is run in float32.
    kind: of the target.
  """
  model = _in_float32(model)

  @jax.jit
  def step(
    variables: Mapping[str, Any],
    batch: Mapping[str, Any],
    against_first: Bool[Array, 'b c'],
  ) -> Integrated:
    def output(gates: Gates) -> Float[Array, ' b']:
      predictions = model.apply(
        variables, with_gates(batch, gates), stage=STAGE, train=False
      )
      assert isinstance(predictions, Predictions)  # nothing is mutable here
      logits = predictions.logits
      if kind == 'days':
        return logits[:, 0]
      return jax.nn.logsumexp(logits, where=against_first, axis=1) - logits[:, 0]

    return integrate(output, open_gates(batch, model.config.modalities))

  return step


def attention_step(
  model: MedM2T,
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
  """Returns the compiled `(variables, batch) -> intermediates`: sown attention weights.

  Args:
    model: whose parameters will be given; it is run in float32.
  """
  model = _in_float32(model)

  @jax.jit
  def step(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
    updates: Any
    _, updates = model.apply(
      variables, batch, stage=STAGE, train=False, mutable=['intermediates']
    )
    return dict(updates.get('intermediates', {}))

  return step


def _in_float32(model: MedM2T) -> MedM2T:
  return MedM2T(dataclasses.replace(model.config, dtype='float32'))
