"""Integrated gradients of predictions.

Source: Sundararajan et al., arXiv 1703.01365.

Event values enter the model through bins and terms through a bag, and neither can be scaled
down. So the path runs over the gates of `medm2t_jax.models.gates`, one per event, grid
cell, static column, ECG sample, measurement and term: all of them go from 0 to 1 together.
Presence masks, counts and times stay those of the full sample along the path, because they
jump. So the path is continuous. Its start, the baseline, is a sample that was observed
equally often, whose events are all 'none', whose numbers are medians, and whose ECGs are
flat.

BatchNorm uses its running statistics and is affine; the model has kinks (ReLU, max-pooling)
but no jumps, so the attributions sum to f(sample) - f(baseline) up to the quadrature error.
Kinks lie close together along the whole path, so smooth rules gain nothing: this is the
trapezoidal rule, whose nodes are doubled until the attributions of a sample add up. A
LayerNorm turns its first small step away from the baseline into a large one, so nodes are
dense there: the position on the path is the square of a uniform variable
(docs/rationale.md, "Evaluation").
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

NODES = 8  # per call of the compiled step
FEWEST = 63  # intervals at first: 64 nodes
LEVELS = 6  # largest number of doublings: 4,032 intervals

# A residual is small if it is below either limit.
SHARE_TOLERATED = 0.05  # of |f(sample) - f(baseline)|
TOLERATED = 0.02  # log odds, or the unit of the target
# Limits of the residual at which doubling stops. They are stricter than the tolerated ones,
# because errors of single variables may cancel.
_ENOUGH, _SHARE_ENOUGH = 0.01, 0.01


@dataclasses.dataclass(frozen=True)
class Completeness:
  """Whether attributions account for an output.

  Attributes:
    output: f(sample).
    baseline: f(baseline).
    attributed: sum of all attributions.
  """

  output: float
  baseline: float
  attributed: float

  @property
  def residual(self) -> float:
    """The part of f(sample) - f(baseline) that the attributions do not explain."""
    return self.output - self.baseline - self.attributed

  @property
  def holds(self) -> bool:
    """Whether the residual is small."""
    return self.within(TOLERATED, SHARE_TOLERATED)

  def within(self, allowed: float, share: float) -> bool:
    """Whether the residual is at most `allowed`, or `share` of the attributed sum."""
    return abs(self.residual) <= max(allowed, share * abs(self.output - self.baseline))


class Integrated(NamedTuple):
  """Attributions of one output of every row of a batch.

  Attributes:
    slopes: mean gradients on the path, one per number at its end. If that number is 1, as
      for gates, the slope is the attribution; otherwise the attribution is their product.
    output: f at the end of the path, with all gates open.
    baseline: f at its start, with all gates closed.
  """

  slopes: Any
  output: Float[Array, ' b']
  baseline: Float[Array, ' b']


class Part(NamedTuple):
  """The contribution of some nodes.

  Attributes:
    slopes: their part of the integral, one per number at the end of the path.
    value: f at every node.
  """

  slopes: Any
  value: Float[Array, 'nodes b']


class Nodes(NamedTuple):
  """Nodes of a quadrature on the path.

  Attributes:
    root: square root of the position on the path, float32.
    weight: of the gradient there, float32.
  """

  root: Float[np.ndarray, ' nodes']
  weight: Float[np.ndarray, ' nodes']


def nodes_of(level: int) -> list[Nodes]:
  """The nodes that a level adds, `NODES` at a time; the last may have weight 0.

  Level 0 is the trapezoidal rule with `FEWEST` intervals, from the start of the path to its
  end. Every further level is the midpoint rule on the intervals so far: the mean of both is
  the trapezoidal rule with twice as many intervals.
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
  """The integral over the nodes of one level only, as NumPy arrays.

  The ends of the path belong to level 0.

  Args:
    step: nodes -> their contribution.
    level: from 0.
  """
  found = [jax.device_get(step(nodes)) for nodes in nodes_of(level)]
  total = lambda *parts: functools.reduce(np.add, parts)
  slopes = jax.tree.map(total, *(part.slopes for part in found))
  return Integrated(slopes, found[-1].value[-1], found[0].value[0])


def doubled(before: Integrated, midpoints: Integrated) -> Integrated:
  """The trapezoidal rule with twice as many intervals.

  Args:
    before: over all levels so far.
    midpoints: over the next level only.
  """
  mean = lambda old, new: (old + new) / 2
  return before._replace(slopes=jax.tree.map(mean, before.slopes, midpoints.slopes))


@dataclasses.dataclass
class Doubling:
  """The integral of one row, whose nodes are doubled until its attributions add up.

  Attributes:
    so_far: over the nodes so far.
    end: end of the path of the row.
    over: whether its attributions add up, or the last level is reached.
  """

  so_far: Integrated | None = None
  end: Any = None
  over: bool = False

  def add(self, level: int, own: Integrated, end: Any) -> None:
    """Adds the integral over the next level.

    Args:
      level: from 0.
      own: integral of this row over the level; output and baseline are numbers.
      end: of the path.
    """
    self.so_far = doubled(self.so_far, own) if self.so_far else own
    self.end = end
    enough = self.completeness.within(_ENOUGH, _SHARE_ENOUGH)
    self.over = enough or level == LEVELS

  @property
  def slopes(self) -> Any:
    """Mean gradients over the nodes so far."""
    assert self.so_far is not None
    return self.so_far.slopes

  @property
  def completeness(self) -> Completeness:
    """Whether the attributions so far add up."""
    assert self.so_far is not None
    return completeness(self.so_far, self.end)


def completeness(integrated: Integrated, end: Any) -> Completeness:
  """Whether the attributions of one row add up.

  Args:
    integrated: of the row alone.
    end: of its path, a tree like its slopes.
  """
  each = jax.tree.map(
    lambda slope, at: (np.asarray(slope) * np.asarray(at)).sum(dtype=np.float64),
    integrated.slopes,
    end,
  )
  return Completeness(
    float(integrated.output), float(integrated.baseline), float(sum(jax.tree.leaves(each)))
  )


def integrate(
  function: Callable[[Any], Float[Array, ' b']], end: Any, nodes: Nodes
) -> Part:
  """Integrates the gradient over some nodes of the straight path from 0.

  Args:
    function: of a tree of numbers, each of which belongs to one row: no row's output may
      depend on another row's numbers.
    end: end of the path; for gates, 1 everywhere.
    nodes: where to take the gradient.
  """

  def summed(each: Any) -> tuple[Float[Array, ''], Float[Array, ' b']]:
    value = function(each)
    return value.sum(), value

  gradient = jax.grad(summed, has_aux=True)
  # All nodes at once: XLA's convolutions are four times slower inside a loop.
  at = lambda root: gradient(jax.tree.map(lambda x: root**2 * x, end))
  found, value = jax.vmap(at)(nodes.root)
  return Part(jax.tree.map(lambda x: jnp.tensordot(nodes.weight, x, 1), found), value)
