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
close together all along the path, so smooth rules gain nothing: this is the trapezoidal
rule, whose nodes are doubled until the attributions of a sample add up. A LayerNorm turns
its first small step away from the baseline into a large one, so the nodes are dense there:
the place on the path is the square of a uniform variable (docs/rationale.md, "Evaluation").
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.gates import Gates, open_gates, with_gates
from medm2t_jax.models.link import explained
from medm2t_jax.models.medm2t import MULTIMODAL, MedM2T

NODES = 8  # of one call of a compiled step
FEWEST = 63  # intervals of a sample: 64 nodes
LEVELS = 6  # doublings at most: 4,032 intervals

STAGE = MULTIMODAL


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


class Part(NamedTuple):
  """What some nodes say.

  Attributes:
    attributions: their part of the integral, one per gate.
    value: f at every node.
  """

  attributions: Any
  value: Float[Array, 'nodes b']


class Nodes(NamedTuple):
  """Nodes of a quadrature on the path.

  Attributes:
    root: square root of the place on the path, float32.
    weight: of the gradient there, float32.
  """

  root: Float[np.ndarray, ' nodes']
  weight: Float[np.ndarray, ' nodes']


def nodes_of(level: int) -> list[Nodes]:
  """The nodes that a level adds, `NODES` at a time; the last may have no weight.

  Level 0 is the trapezoidal rule with `FEWEST` intervals, from the start of the path to
  its end. Every other level is the midpoint rule on the intervals so far: the mean of
  both is the trapezoidal rule with twice as many intervals.
  """
  if level == 0:
    root = np.arange(FEWEST + 1) / FEWEST
    weight = 2 * root / FEWEST  # d(root**2)
    weight[-1] /= 2
  else:
    count = FEWEST * 2 ** (level - 1)
    root = (np.arange(count) + 0.5) / count
    weight = 2 * root / count
  padding = (0, -len(root) % NODES)
  root, weight = np.pad(root, padding, mode='edge'), np.pad(weight, padding)
  return [
    Nodes(part.astype(np.float32), its_weight.astype(np.float32))
    for part, its_weight in zip(
      root.reshape(-1, NODES), weight.reshape(-1, NODES), strict=True
    )
  ]


def level_of(step: Callable[[Nodes], Part], level: int) -> Integrated:
  """What a level says by itself, as NumPy arrays; the ends of the path are of level 0.

  Args:
    step: what some nodes say.
    level: from 0.
  """
  found = [jax.device_get(step(nodes)) for nodes in nodes_of(level)]
  total = lambda *parts: functools.reduce(np.add, parts)
  attributions = jax.tree.map(total, *(part.attributions for part in found))
  return Integrated(attributions, found[-1].value[-1], found[0].value[0])


def doubled(before: Integrated, midpoints: Integrated) -> Integrated:
  """The trapezoidal rule with twice as many intervals.

  Args:
    before: of all levels so far.
    midpoints: what the next level says by itself.
  """
  mean = lambda old, new: (old + new) / 2
  return before._replace(
    attributions=jax.tree.map(mean, before.attributions, midpoints.attributions)
  )


def integrate(
  function: Callable[[Any], Float[Array, ' b']], gates: Any, nodes: Nodes
) -> Part:
  """Integrates the gradient over some nodes of the path from closed to open gates.

  Args:
    function: of a tree of gates, each of which belongs to one row: no row's output may
      depend on another row's gates.
    gates: the tree with every gate open, 1.
    nodes: where to take the gradient.
  """

  def summed(each: Any) -> tuple[Float[Array, ''], Float[Array, ' b']]:
    value = function(each)
    return value.sum(), value

  gradient = jax.grad(summed, has_aux=True)
  # All nodes at once: XLA's convolutions are four times slower inside a loop.
  at = lambda root: gradient(jax.tree.map(lambda gate: root**2 * gate, gates))
  found, value = jax.vmap(at)(nodes.root)
  return Part(jax.tree.map(lambda x: jnp.tensordot(nodes.weight, x, 1), found), value)


def explain_step(
  model: MedM2T,
) -> Callable[[Mapping[str, Any], Mapping[str, Any], Bool[Array, 'b c'], Nodes], Part]:
  """Returns the compiled `(variables, batch, chosen, nodes) -> Part`.

  `batch` has no device axis. What is explained of a row is `link.explained` of its outputs
  and of what is `chosen` among them.

  Args:
    model: whose parameters will be given; it is run in float32.
  """
  model = _in_float32(model)

  @jax.jit
  def step(
    variables: Mapping[str, Any],
    batch: Mapping[str, Any],
    chosen: Bool[Array, 'b c'],
    nodes: Nodes,
  ) -> Part:
    def output(gates: Gates) -> Float[Array, ' b']:
      predictions = model.apply(
        variables, with_gates(batch, gates), stage=STAGE, train=False
      )
      assert isinstance(predictions, Predictions)  # nothing is mutable here
      return explained(predictions.logits, chosen, model.config.link)

    shaped_like = {each.name: each.gates for each in model.config.modalities}
    return integrate(output, open_gates(batch, shaped_like), nodes)

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
