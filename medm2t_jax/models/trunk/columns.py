"""Summary statistics of every item of a sample, as columns of numbers.

The ensemble trunk and the baselines read these columns (after HAIM, Soenksen et al. 2022).
Per numeric item of events and per signal of a grid: `STATISTICS`; per signal also its
spread inside short segments. Per category of an item: whether it was the last, and its
count; per categorical item the hours since the last. ECG: last value and mean of each
measurement, which terms were ever reported, number of recordings, hours since the last.
Static columns unchanged, categories one-hot. Nothing is fitted.

Letters: b rows, n columns, j items, o observations of a batch in any shape.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medm2t_jax.models.trunk.column_statistics import (
  STATISTICS,
  Columns,
  Observations,
  categorical_statistics,
  cell_spread,
  cell_statistics,
  numeric_statistics,
)

OF_MEASUREMENTS = ('last', 'mean')


class ColumnKind(Protocol):
  """The columns of a modality; hashable, without state.

  Attributes:
    unread: large arrays that no column depends on.
  """

  unread: ClassVar[tuple[str, ...]]

  @property
  def count(self) -> int:
    """Number of columns, n."""
    ...

  def __call__(self, arrays: Mapping[str, Array], rows: int, /) -> Columns:
    """Columns of the rows (b n); arrays as in docs/design.md, "The batch"."""
    ...


@dataclasses.dataclass(frozen=True)
class EventColumns:
  """Columns of an event modality: numeric items first, then categorical ones.

  Attributes:
    categories: number of categories per item, 0 for a numeric item.
  """

  categories: tuple[int, ...]
  unread: ClassVar[tuple[str, ...]] = ()

  @property
  def count(self) -> int:
    numeric = sum(not levels for levels in self.categories)
    levels = sum(self.categories)
    return numeric * len(STATISTICS) + 2 * levels + len(self.categories) - numeric

  def __call__(self, events: Mapping[str, Array], rows: int) -> Columns:
    """Columns of the rows (b n); events as in docs/design.md, "The batch"."""
    levels = np.array(self.categories, np.int32)
    item, category = events['item'], events['category']
    shape = jnp.shape(item)
    row = jnp.broadcast_to(jnp.arange(rows)[:, jnp.newaxis], shape)
    of_item = jnp.asarray(levels)[item]
    parts = []
    if (levels == 0).any():
      place = jnp.asarray(np.cumsum(levels == 0) - 1)
      is_number = events['mask'] & (category < 0) & (of_item == 0)
      value = jnp.where(is_number, events['value'], 0.0)
      observed = Observations(
        row, place[item], value, events['time'], is_number, events.get('token_gate')
      )
      parts.append(_flat(numeric_statistics(observed, (rows, int((levels == 0).sum())))))
    if (levels > 0).any():
      is_category = events['mask'] & (category >= 0) & (category < of_item)
      observed = Observations(
        row, item, category, events['time'], is_category, events.get('token_gate')
      )
      parts.append(categorical_statistics(observed, rows, levels))
    return _beside(parts)


@dataclasses.dataclass(frozen=True)
class GridColumns:
  """Columns of a grid: per signal its `STATISTICS`, then its spread.

  Attributes:
    signals: of the grid.
    step_hours: between its cells.
  """

  signals: int
  step_hours: float
  unread: ClassVar[tuple[str, ...]] = ()

  @property
  def count(self) -> int:
    return self.signals * (len(STATISTICS) + 1)

  def __call__(self, grid: Mapping[str, Array], rows: int) -> Columns:
    """Columns of the rows (b n); grid as in docs/design.md, "The batch"."""
    del rows
    observed = jnp.asarray(grid['observed'])
    value = jnp.where(observed, grid['value'], 0.0)
    statistics = cell_statistics(value, observed, self.step_hours, grid.get('value_gate'))
    deviation, known = cell_spread(value, observed)
    last = lambda x: x[..., jnp.newaxis]
    joined = lambda many, one: jnp.concatenate([many, last(one)], axis=-1)
    gates = None
    if statistics.gate is not None:
      mean = statistics.gate[..., STATISTICS.index('mean')]
      gates = joined(statistics.gate, mean)
    return _flat(
      Columns(joined(statistics.value, deviation), joined(statistics.known, known), gates)
    )


@dataclasses.dataclass(frozen=True)
class EcgColumns:
  """Columns of ECG recordings.

  Attributes:
    measurements: of the machine.
    terms: of its report.
  """

  measurements: int
  terms: int
  unread: ClassVar[tuple[str, ...]] = ('signal',)

  @property
  def count(self) -> int:
    return self.measurements * len(OF_MEASUREMENTS) + self.terms + 2

  def __call__(self, ecg: Mapping[str, Array], rows: int) -> Columns:
    """Columns of the rows (b n); ecg as in docs/design.md, "The batch"."""
    mask, owner = jnp.asarray(ecg['mask']), jnp.asarray(ecg['owner'])
    shape = (mask.shape[0], self.measurements)
    spread = lambda x: jnp.broadcast_to(x, shape)
    measured = ecg['measurements_mask'] & mask[:, jnp.newaxis]
    observed = Observations(
      spread(owner[:, jnp.newaxis]),
      spread(jnp.arange(self.measurements)[jnp.newaxis]),
      jnp.where(measured, ecg['measurements'], 0.0),
      spread(ecg['time'][:, jnp.newaxis]),
      measured,
      ecg.get('measurements_gate'),
    )
    chosen = np.array([STATISTICS.index(name) for name in OF_MEASUREMENTS])
    of_machine = _flat(
      jax.tree.map(
        lambda x: x[..., chosen], numeric_statistics(observed, (rows, self.measurements))
      )
    )
    place = jnp.where(mask, owner, rows)
    total = lambda x: jax.ops.segment_sum(x, place, rows + 1)[:-1]
    reported = (ecg['terms'] > 0) & mask[:, jnp.newaxis]
    times = total(reported.astype(jnp.float32))
    gate = None
    if 'terms_gate' in ecg:
      gate = total(jnp.where(reported, ecg['terms_gate'], 0.0))
      gate = jnp.where(times > 0, gate / jnp.maximum(times, 1.0), 1.0)
    known = jnp.ones(times.shape, bool)
    of_terms = Columns((times > 0).astype(jnp.float32), known, gate)
    count = total(mask.astype(jnp.float32))[:, jnp.newaxis]
    latest = jax.ops.segment_max(jnp.where(mask, ecg['time'], -jnp.inf), place, rows + 1)
    hours = jnp.where(count[:, 0] > 0, -latest[:-1], 0.0)[:, jnp.newaxis]
    of_time = Columns(
      jnp.concatenate([count, hours], axis=1),
      jnp.concatenate([jnp.ones_like(count, bool), count > 0], axis=1),
      None if gate is None else jnp.ones((rows, 2)),
    )
    return _beside([of_machine, of_terms, of_time])


@dataclasses.dataclass(frozen=True)
class StaticColumns:
  """Static columns: numbers, then the levels of each categorical column.

  Attributes:
    numeric: number of numeric columns.
    levels: number of levels per categorical column.
  """

  numeric: int
  levels: tuple[int, ...]
  unread: ClassVar[tuple[str, ...]] = ()

  @property
  def count(self) -> int:
    return self.numeric + sum(self.levels)

  def __call__(self, static: Mapping[str, Array], rows: int) -> Columns:
    """Columns of the rows (b n); static as in docs/design.md, "The batch"."""
    del rows
    known = jnp.asarray(static['numeric_mask'])
    value = jnp.where(known, static['numeric'], 0.0)
    parts = [Columns(value, known, static.get('numeric_gate'))]
    for index, levels in enumerate(self.levels):
      level = static['categorical'][:, index, jnp.newaxis]
      one_hot = (level == jnp.arange(levels)[jnp.newaxis]).astype(jnp.float32)
      spread = lambda x, like=one_hot: jnp.broadcast_to(x, like.shape)
      gate = None
      if 'categorical_gate' in static:
        gate = spread(static['categorical_gate'][:, index, jnp.newaxis])
      parts.append(Columns(one_hot, spread(level >= 0), gate))
    return _beside(parts)


@dataclasses.dataclass(frozen=True)
class NoteColumns:
  """Columns of notes: the mean of their vectors, their number, hours since the last.

  Attributes:
    width: numbers of a vector.
  """

  width: int
  unread: ClassVar[tuple[str, ...]] = ()

  @property
  def count(self) -> int:
    return self.width + 2

  def __call__(self, notes: Mapping[str, Array], rows: int) -> Columns:
    """Columns of the rows (b n); notes as in docs/design.md, "The batch"."""
    mask = jnp.asarray(notes['mask']).astype(jnp.float32)
    count = jnp.sum(mask, axis=1, keepdims=True)
    some = jnp.maximum(count, 1.0)
    mean = jnp.einsum('bn,bnv->bv', mask, notes['vector']) / some
    latest = jnp.max(jnp.where(notes['mask'], notes['time'], -jnp.inf), axis=1)
    known = count > 0
    hours = jnp.where(known, -latest[:, jnp.newaxis], 0.0)
    gate = None
    if 'note_gate' in notes:
      share = jnp.sum(mask * notes['note_gate'], axis=1, keepdims=True) / some
      share = jnp.broadcast_to(jnp.where(known, share, 1.0), mean.shape)
      gate = jnp.concatenate([share, jnp.ones((rows, 2))], axis=1)
    every = jnp.broadcast_to(known, mean.shape)
    return Columns(
      jnp.concatenate([mean, count, hours], axis=1),
      jnp.concatenate([every, jnp.ones_like(known), known], axis=1),
      gate,
    )


def table(
  kinds: tuple[tuple[str, ColumnKind], ...], batch: Mapping[str, Any]
) -> Float[Array, 'r n']:
  """The columns of all modalities side by side, NaN where unknown.

  Args:
    kinds: modality -> its columns.
    batch: docs/design.md, "The batch", with the device axis.

  Returns:
    One row per row of the batch, device after device.
  """
  return _table(kinds, read_of(kinds, batch))


@functools.partial(jax.jit, static_argnums=0)
def _table(
  kinds: tuple[tuple[str, ColumnKind], ...], batch: Mapping[str, Any]
) -> Float[Array, 'r n']:
  devices, rows = batch['row'].shape
  parts = []
  for name, kind in kinds:
    found = jax.vmap(lambda arrays, kind=kind: kind(arrays, rows))(batch[name])
    value = jnp.where(found.known, found.value, jnp.nan)
    parts.append(value.reshape(devices * rows, -1))
  return jnp.concatenate(parts, axis=1)


def read_of(
  kinds: Sequence[tuple[str, ColumnKind]], batch: Mapping[str, Any]
) -> dict[str, Any]:
  """A batch with only the arrays that columns depend on, so without ECG signals."""
  read = {
    name: {key: array for key, array in batch[name].items() if key not in kind.unread}
    for name, kind in kinds
  }
  return {'row': batch['row'], **read}


def _flat(columns: Columns) -> Columns:
  """Reshapes (b j s) to (b n), the statistics of an item side by side."""
  return jax.tree.map(lambda x: x.reshape(x.shape[0], -1), columns)


def _beside(parts: list[Columns]) -> Columns:
  """Columns side by side."""
  gates = [part.gate for part in parts if part.gate is not None]
  joined = lambda arrays: jnp.concatenate(arrays, axis=1)
  return Columns(
    joined([part.value for part in parts]),
    joined([part.known for part in parts]),
    joined(gates) if gates else None,
  )
