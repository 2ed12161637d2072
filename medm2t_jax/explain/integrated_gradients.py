"""Integrated gradients of one prediction (Sundararajan et al., arXiv 1703.01365).

Event values enter the model through bins, terms through a bag, and neither can be
scaled down. So the path runs over the gates of `medm2t_jax.models.gates`, one per event,
grid cell, static column, ECG sample, measurement and term: all of them from 0 to 1
together. Presence masks, counts and times along the path are those of the full sample:
they decide what the model sees as there, jumping from one to the other. So the path is
continuous, and its start, the baseline, is a sample observed just as much and as often,
whose events are all 'none', whose numbers are medians, and whose ECGs are flat. BatchNorm
uses its running statistics and is affine; the model has kinks (ReLU, max-pooling) and no
jumps, so the attributions sum to f(sample) - f(baseline) up to the quadrature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.gates import Gates, open_gates, with_gates
from medm2t_jax.models.medm2t import MedM2T

STEPS = 64  # Gauss-Legendre nodes
_AT_ONCE = 8  # nodes that are one batched computation

STAGE = 'multimodal'


class Integrated(NamedTuple):
  """Attributions of one output.

  Attributes:
    attributions: one per gate, float32, shaped like the gates.
    output: f with all gates open.
    baseline: f with all gates closed.
  """

  attributions: Any
  output: Float[Array, '']
  baseline: Float[Array, '']


def integrate(
  function: Callable[[Any], Float[Array, '']], gates: Any, steps: int = STEPS
) -> Integrated:
  """Integrates the gradient on the straight path from closed to open gates.

  Args:
    function: of a tree of gates.
    gates: the tree with every gate open, 1.
    steps: Gauss-Legendre nodes, a multiple of 8.
  """
  nodes, weights = np.polynomial.legendre.leggauss(steps)
  pieces = lambda x: jnp.asarray(x.reshape(-1, _AT_ONCE), jnp.float32)
  scaled = lambda alpha: jax.tree.map(lambda gate: alpha * gate, gates)
  gradient = jax.grad(function)

  def add(total: Any, piece: tuple[Array, Array]) -> tuple[Any, None]:
    alphas, shares = piece
    found = jax.vmap(lambda alpha: gradient(scaled(alpha)))(alphas)
    share = lambda old, new: old + jnp.tensordot(shares, new, axes=1)
    return jax.tree.map(share, total, found), None

  zeros = jax.tree.map(jnp.zeros_like, gates)
  attributions, _ = jax.lax.scan(add, zeros, (pieces((nodes + 1) / 2), pieces(weights / 2)))
  return Integrated(attributions, function(gates), function(zeros))


def explain_step(
  model: MedM2T, kind: Literal['classes', 'days']
) -> Callable[..., tuple[Integrated, dict[str, Any]]]:
  """Returns the compiled `(variables, batch, against_first) -> ...` for one sample.

  It gives the attributions and the sown attention weights. `batch` has one row and no
  device axis. The explained output is the days, or, of classes, the log odds
  of those where `against_first`, bool (c), is true, together, against the first class.

  Args:
    model: whose parameters will be given; it is run in float32.
    kind: of the target.
  """
  config = dataclasses.replace(model.config, dtype='float32')
  model = MedM2T(config)

  @jax.jit
  def step(
    variables: Mapping[str, Any], batch: Mapping[str, Any], against_first: Bool[Array, ' c']
  ) -> tuple[Integrated, dict[str, Any]]:
    def output(gates: Gates) -> Float[Array, '']:
      predictions = model.apply(
        variables, with_gates(batch, gates), stage=STAGE, train=False
      )
      assert isinstance(predictions, Predictions)  # nothing is mutable here
      logits = predictions.logits[0]
      if kind == 'days':
        return logits[0]
      return jax.nn.logsumexp(logits, where=against_first) - logits[0]

    integrated = integrate(output, open_gates(batch, config.modalities))
    updates: Any
    _, updates = model.apply(
      variables, batch, stage=STAGE, train=False, mutable=['intermediates']
    )
    return integrated, dict(updates.get('intermediates', {}))

  return step
