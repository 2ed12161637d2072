"""The simple models of the members' blends, on the path of `whole_model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from medm2t_jax.inference.attribution.additive import additive
from medm2t_jax.inference.attribution.rows import items_of_columns
from medm2t_jax.inference.attribution.whole_model import Blend, Member, Path, Scores
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.shown import ItemAttribution
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.trunk import columns


class Said(NamedTuple):
  """Explained predictions of the simple models for some rows of a batch. Letter: n columns.

  Attributes:
    rows: indices of the rows (r).
    value: their columns (r n), NaN where unknown.
    attributions: for each member, name of a simple model -> attribution of every column to
      its scores, float64 (r n c), or (r n l 2) for labels.
  """

  rows: Int[np.ndarray, ' r']
  value: Float[np.ndarray, 'r n']
  attributions: tuple[Mapping[str, np.ndarray], ...]

  def scores(self, count: int) -> tuple[Scores, ...]:
    """Scores above the expected ones, for `count` rows of a batch; 0 in all other rows."""

    def placed(x: np.ndarray) -> np.ndarray:
      totals = x.sum(axis=1).astype(np.float32)
      result = np.zeros((count, *totals.shape[1:]), np.float32)
      result[self.rows] = totals
      return result

    return jax.tree.map(placed, self.attributions)

  def of(self, place: int) -> Said:
    """A single one of the rows."""
    here = slice(place, place + 1)
    each = jax.tree.map(lambda x: x[here], self.attributions)
    return Said(self.rows[here], self.value[here], each)


class SimpleModels:
  """The simple models of all members; a member without a blend has none."""

  def __init__(
    self, config: ModelConfig[Modality], blends: Sequence[Mapping[str, Any] | None]
  ):
    """Prepares the blends.

    Args:
      config: of the network.
      blends: one per member, from `medm2t_jax.inference.blend.restore`.
    """
    self._modalities, self._kinds = config.modalities, config.columns
    self._blends = tuple(blends)
    self._additive = tuple(
      {name: additive(arrays) for name, arrays in each['models'].items()} if each else {}
      for each in blends
    )

  def members(self, variables: Sequence[Mapping[str, Any]]) -> tuple[Member, ...]:
    """The networks in their blends, on the device.

    Args:
      variables: of each network, in the order of the blends.
    """
    blends = [
      Blend(
        dict(each['weights']),
        np.asarray(each['prior'], np.float32),
        {name: one.expected.astype(np.float32) for name, one in simple.items()},
      )
      if each
      else None
      for each, simple in zip(self._blends, self._additive, strict=True)
    ]
    return jax.device_put(
      tuple(
        Member(jax.tree.map(np.asarray, dict(network)), blend)
        for network, blend in zip(variables, blends, strict=True)
      )
    )

  def said(self, batch: Mapping[str, Any], rows: Sequence[int] | np.ndarray) -> Said:
    """Explains rows of a batch without a device axis."""
    rows = np.asarray(rows)
    if not any(self._additive):
      return Said(rows, np.zeros((len(rows), 0)), tuple({} for _ in self._additive))
    stacked = jax.tree.map(lambda x: x[None], dict(batch))
    value = np.asarray(columns.table(self._kinds, stacked))[rows]
    each = tuple(
      {name: one.attributions(value) for name, one in simple.items()}
      for simple in self._additive
    )
    return Said(rows, value, each)

  def items(
    self, said: Said, slopes: Path, items: Sequence[ItemAttribution]
  ) -> list[ItemAttribution]:
    """Attributions of the columns to the output of one row, by variable.

    Args:
      said: of this row only.
      slopes: of the output of the row, over the whole path.
      items: names of the networks' attributions, from `rows.items_of`.
    """
    if not any(self._additive):
      return []
    each = jax.tree.map(
      lambda slope, adds: np.tensordot(adds[0], slope.astype(np.float64), slope.ndim),
      slopes.scores,
      said.attributions,
    )
    attribution = sum(jax.tree.leaves(each), np.zeros(said.value.shape[1]))
    return items_of_columns(self._modalities, items, said.value[0], attribution)
