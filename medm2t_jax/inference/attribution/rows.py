"""Extracts one row of a batch and its attributions, by array and by variable."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from medm2t_jax.inference.attribution.integrated_gradients import Integrated
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.shown import Arrays, ColumnVariable, ItemAttribution

Batch = Mapping[str, Any]


def one_row(batch: Batch, row: int, recordings: int) -> dict[str, Any]:
  """The batch of one row, with packed arrays padded to `recordings`."""
  single = _of_row(batch, batch, row, recordings)
  for name, arrays in single.items():
    if isinstance(arrays, Mapping) and 'owner' in arrays:
      single[name] = {**arrays, 'owner': np.zeros_like(arrays['owner'])}
  return single


def integrated_of(
  integrated: Integrated, batch: Batch, row: int, recordings: int
) -> Integrated:
  """The integral of one row of a batch, shaped like `one_row`.

  Its slopes are a `whole_model.Path`; output and baseline are numbers.
  """
  slopes = integrated.slopes
  alone = slopes._replace(
    gates=_of_row(slopes.gates, batch, row, recordings),
    scores=jax.tree.map(lambda x: x[row], slopes.scores),
  )
  return Integrated(alone, integrated.output[row], integrated.baseline[row])


def unpacked(
  single: Batch, gates: Mapping[str, Any]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
  """Arrays and attributions of a row, without the axis of batch rows.

  Args:
    single: from `one_row`.
    gates: slopes of its gates: modality -> name of a gate -> attributions.

  Returns:
    Modality -> its arrays, and modality -> attributions by name of the gate without
    '_gate', shaped like the arrays that `gates` of the modality names.
  """
  arrays, attributions = {}, {}
  for name, each in gates.items():
    packed = 'owner' in single[name]  # packed arrays have no axis of rows
    first = (lambda x: x) if packed else (lambda x: x[0])
    arrays[name] = {key: first(array) for key, array in single[name].items()}
    attributions[name] = {
      key.removesuffix('_gate'): first(array) for key, array in each.items()
    }
  return arrays, attributions


def items_of(
  modalities: Sequence[Modality],
  arrays: Mapping[str, Arrays],
  attributions: Mapping[str, Arrays],
) -> list[ItemAttribution]:
  """The variables of a sample with their attributions.

  Args:
    modalities: of the model.
    arrays: of the sample, from `unpacked`.
    attributions: of the sample, from `unpacked`.
  """
  result: list[ItemAttribution] = []
  for each in modalities:
    result += each.attributed(arrays[each.name], attributions[each.name])
  return result


def items_of_columns(
  modalities: Sequence[Modality],
  items: Sequence[ItemAttribution],
  value: np.ndarray,
  attribution: np.ndarray,
) -> list[ItemAttribution]:
  """Attributions of columns by variable, named as in `items` if the sample has it.

  The attribution of a variable or category that was not recorded belongs to the variable as
  a whole: to its only entry, or else to an extra entry with the name of the variable. The
  `observed` of such an entry is 0 if nothing was recorded, else 1. Zero attributions are
  left out.

  Args:
    modalities: of the model, whose columns are side by side.
    items: from `items_of`.
    value: of the columns (n), NaN where unknown.
    attribution: of the columns (n).
  """
  result: list[ItemAttribution] = []
  start = 0
  for each in modalities:
    variables = each.column_variables()
    here = slice(start, start + len(variables))
    start = here.stop
    known = [item for item in items if item.modality == each.name]
    result += _by_variable(each.name, variables, known, value[here], attribution[here])
  assert start == len(value), (start, len(value))
  return result


def together(
  items: Sequence[ItemAttribution], others: Sequence[ItemAttribution]
) -> list[ItemAttribution]:
  """One entry per variable, attributions summed: `items`, then the rest of `others`."""
  found: dict[tuple[str, str, str], ItemAttribution] = {}
  for each in (*items, *others):
    key = (each.modality, each.name, each.unit)
    before = found[key].attribution if key in found else 0.0
    found[key] = dataclasses.replace(
      found.get(key, each), attribution=before + each.attribution
    )
  return list(found.values())


def _by_variable(
  modality: str,
  variables: Sequence[ColumnVariable],
  items: Sequence[ItemAttribution],
  value: np.ndarray,
  attribution: np.ndarray,
) -> list[ItemAttribution]:
  by_name = {(item.name, item.unit): item for item in items}
  whole = {(each.name, each.unit): each.variable for each in variables}
  of_variable: dict[tuple[str | None, str], list[ItemAttribution]] = {}
  for key, item in by_name.items():
    of_variable.setdefault((whole.get(key), item.unit), []).append(item)
  found: dict[tuple[str, str], ItemAttribution] = {}
  for each, x, its_own in zip(variables, value, attribution, strict=True):
    item = by_name.get((each.name, each.unit))
    entries = of_variable.get((each.variable, each.unit), [])
    if item is None and len(entries) == 1:
      (item,) = entries
    recorded = int(np.isfinite(x) and x != 0)
    if item is None:
      item = ItemAttribution(modality, each.variable, each.unit, None, recorded, 0.0)
    key = (item.name, item.unit)
    before = found.get(key, dataclasses.replace(item, attribution=0.0))
    found[key] = dataclasses.replace(
      before,
      attribution=before.attribution + float(its_own),
      observed=max(before.observed, item.observed),
    )
  return [each for each in found.values() if each.attribution]


def _of_row(
  tree: Mapping[str, Any], batch: Batch, row: int, recordings: int
) -> dict[str, Any]:
  """One row of a tree with the layout of a batch."""

  def alone(slots: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    if slots is None:
      return x[row : row + 1]
    own = x[slots]
    padding = np.zeros((recordings - len(own), *x.shape[1:]), x.dtype)
    return np.concatenate([own, padding])

  return {
    name: jax.tree.map(functools.partial(alone, _slots(batch[name], row)), each)
    for name, each in tree.items()
  }


def _slots(arrays: Any, row: int) -> np.ndarray | None:
  """Positions of a row's entries in packed arrays; None if arrays are not packed."""
  if not isinstance(arrays, Mapping) or 'owner' not in arrays:
    return None
  return np.flatnonzero(arrays['mask'] & (arrays['owner'] == row))
