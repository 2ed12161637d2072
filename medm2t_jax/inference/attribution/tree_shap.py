"""Exact path-dependent Shapley values of boosted trees (TreeSHAP).

Source: Lundberg et al., arXiv 1802.03888, Algorithm 2.

The expected output of a tree given only some columns: at a split on a known column the
sample's own branch is taken; at a split on any other column both branches are, weighted by
the training samples that took them (their cover). So a leaf of value v, whose path splits
on the columns U, contributes to the expectation given the columns S

  v * product over S of o_j * product over U without S of z_j,

where o_j is 1 if the sample takes the leaf's branch at all splits on j, else 0, and z_j is
the share of the training samples that do. The Shapley value of j in this game is

  v * (o_j - z_j) * integral over t from 0 to 1 of the product over U without j of
  (1 - t) z_k + t o_k,

because the weight |S|! (|U| - |S| - 1)! / |U|! of a set is the integral of
t^|S| (1 - t)^rest. The integrand is a polynomial of degree |U| - 1, which Gauss-Legendre
quadrature integrates exactly with half as many nodes. So all leaves of all trees take a
few array operations in float64, and every term is above 0.

Letters: b samples, n columns, l leaves, u columns of a path, c outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Paths(NamedTuple):
  """The leaves of all trees, each with the columns that its path splits on.

  A path has each column once: several splits on it form one interval. Unused positions have
  the full interval and share 1, which change nothing.

  Attributes:
    column: at each position of a path.
    above, up_to: interval of values that take the leaf's branch: above < x <= up_to.
    missing: whether a missing value takes it.
    share: of the training samples at these splits that take it, z.
    value: of the leaf.
    output: index of the output that the leaf's tree adds to.
    start: the constant that the trees are added to.
  """

  column: Int[np.ndarray, 'l u']
  above: Float[np.ndarray, 'l u']
  up_to: Float[np.ndarray, 'l u']
  missing: Bool[np.ndarray, 'l u']
  share: Float[np.ndarray, 'l u']
  value: Float[np.ndarray, ' l']
  output: Int[np.ndarray, ' l']
  start: Float[np.ndarray, ' c']


def paths_of(arrays: Mapping[str, Any]) -> Paths:
  """The leaves of boosted trees.

  Args:
    arrays: of `medm2t_jax.models.blend.simple_models`; `cover` counts each training sample
      once, regardless of its weight.
  """
  arrays = {name: np.asarray(array) for name, array in arrays.items()}
  roots, classes = arrays['root'], arrays['tree_class']
  leaves: list[tuple[dict[int, list[float]], float, int]] = []
  for iteration in roots:
    for root, output in zip(iteration, classes, strict=True):
      # For each column on the path: above, up_to, missing, share.
      waiting: list[tuple[int, dict[int, list[float]]]] = [(int(root), {})]
      while waiting:
        node, way = waiting.pop()
        left = int(arrays['left'][node])
        if left == node:
          leaves.append((way, float(arrays['leaf_value'][node]), int(output)))
          continue
        column, cut = int(arrays['feature'][node]), float(arrays['threshold'][node])
        missing_left = bool(arrays['missing_left'][node])
        for child, is_left in ((left, True), (left + 1, False)):
          above, up_to, missing, share = way.get(column, [-np.inf, np.inf, 1.0, 1.0])
          share *= float(arrays['cover'][child]) / float(arrays['cover'][node])
          if is_left:
            up_to = min(up_to, cut)
          else:
            above = max(above, cut)
          missing *= is_left == missing_left
          waiting.append((child, {**way, column: [above, up_to, missing, share]}))
  width = max((len(way) for way, _, _ in leaves), default=0)
  shape = (len(leaves), max(width, 1))
  column = np.zeros(shape, np.int64)
  place = np.broadcast_to(np.array([-np.inf, np.inf, 1.0, 1.0]), (*shape, 4)).copy()
  for number, (way, _, _) in enumerate(leaves):
    column[number, : len(way)] = list(way)
    place[number, : len(way)] = list(way.values()) or np.zeros((0, 4))
  return Paths(
    column,
    place[..., 0],
    place[..., 1],
    place[..., 2] > 0,
    place[..., 3],
    np.array([value for _, value, _ in leaves], np.float64),
    np.array([output for _, _, output in leaves], np.int64),
    arrays['start'].astype(np.float64),
  )


def expected(paths: Paths) -> Float[np.ndarray, ' c']:
  """Expected scores if no column is known: the scores without any attribution."""
  result = paths.start.copy()
  np.add.at(result, paths.output, paths.value * paths.share.prod(axis=1))
  return result


def attributions(
  paths: Paths, value: Float[np.ndarray, 'b n']
) -> Float[np.ndarray, 'b n c']:
  """Attributions of every column to every score; they sum to the scores minus `expected`.

  Args:
    paths: of the trees.
    value: columns (b n), NaN where missing.
  """
  rows, columns = value.shape
  outputs = len(paths.start)
  result = np.zeros((rows, columns * outputs))
  place = (paths.column * outputs + paths.output[:, np.newaxis]).ravel()
  root, weight = np.polynomial.legendre.leggauss((paths.share.shape[1] + 1) // 2)
  for row, x in enumerate(value):
    of_path = x[paths.column]
    goes = np.where(
      np.isnan(of_path),
      paths.missing,
      (of_path > paths.above) & (of_path <= paths.up_to),
    ).astype(np.float64)
    others = np.zeros(paths.share.shape)
    for t, its_weight in zip((root + 1) / 2, weight / 2, strict=True):
      factor = (1 - t) * paths.share + t * goes
      others += its_weight * factor.prod(axis=1, keepdims=True) / factor
    each = paths.value[:, np.newaxis] * (goes - paths.share) * others
    result[row] = np.bincount(place, each.ravel(), columns * outputs)
  return result.reshape(rows, columns, outputs)
