"""A trained model with one compiled program per bucket and number of rows."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipeline import processors
from data_pipeline.format.modalities.base import found_in
from data_pipeline.format.schema import DataError
from data_pipeline.reading.arranging import Example, arrange, bucket_of
from data_pipeline.reading.planning import recordings_capacity
from medm2t_jax.inference.example import ROWS, padded
from medm2t_jax.inference.program import with_arrays
from medm2t_jax.inference.traced_programs import kept_or_traced
from medm2t_jax.inference.trained_model import TOLERANCE, TrainedModel

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PatientBatch:
  """Patients of one bucket, as input of a compiled program.

  Attributes:
    patients: their indices among all patients (n).
    bucket: of the program.
    arrays: of docs/design.md, "The batch", without a device axis; the first n rows are the
      patients.
  """

  patients: Sequence[int]
  bucket: int
  arrays: Mapping[str, Any]


class CompiledModel:
  """Predicts patients; compiles nothing after construction."""

  def __init__(self, model: TrainedModel, batch_rows: Sequence[int]):
    """Compiles every program and tests it with the model's example.

    Args:
      model: the trained model.
      batch_rows: of its programs.

    Raises:
      DataError: no program holds the two rows of the self-test, or the prediction of the
        example differs from that in the bundle.
    """
    self.model = model
    self._rows = sorted({*batch_rows})
    if not self._rows or self._rows[-1] < ROWS:
      raise DataError(f'--batch_rows: the largest must be at least {ROWS}.')
    predict, self._of_model = with_arrays(model)
    self._compiled: dict[tuple[int, int], Any] = {}
    modalities = model.schema.modalities.items()
    self._packed = [name for name, each in modalities if each.layout == 'packed']
    began = time.perf_counter()
    buckets = range(max(1, len(self.model.batching.buckets)))
    shapes = {
      (bucket, rows): self._arranged([], bucket, rows)
      for bucket in buckets
      for rows in self._rows
    }
    lengths = self.model.batching.buckets or ({},)
    programs = [
      jax.jit(kept_or_traced(model, predict, self._of_model, each).call) for each in lengths
    ]
    with concurrent.futures.ThreadPoolExecutor(processors.available()) as pool:
      compiling = {
        (bucket, rows): pool.submit(programs[bucket].lower(self._of_model, arrays).compile)
        for (bucket, rows), arrays in shapes.items()
      }
    for (bucket, rows), arrays in shapes.items():
      self._compiled[bucket, rows] = compiling[bucket, rows].result()
      if rows >= ROWS:
        self._test(bucket, arrays)
    seconds = time.perf_counter() - began
    count = len(self._compiled)
    _LOGGER.info('%d programs compiled and tested in %.1f s', count, seconds)

  @property
  def most_rows(self) -> int:
    """Rows of the largest program."""
    return self._rows[-1]

  def batches(self, examples: Sequence[Example]) -> Iterator[PatientBatch]:
    """All examples, in batches of few shapes."""
    schema, batching = self.model.schema, self.model.batching
    buckets = np.array([bucket_of(schema, batching, each) for each in examples])
    for bucket in np.unique(buckets).tolist():
      for patients, rows in self._filled(examples, np.flatnonzero(buckets == bucket)):
        few = [examples[index] for index in patients]
        yield PatientBatch(patients, bucket, self._arranged(few, bucket, rows))

  def predict(self, batch: PatientBatch) -> np.ndarray:
    """Probabilities (n c) or numbers (n) of the patients of a batch, float64."""
    rows = len(batch.arrays['row'])
    program = self._compiled[batch.bucket, rows]
    output = np.asarray(program(self._of_model, batch.arrays), np.float64)
    return output[: len(batch.patients)]

  def found(self, batch: PatientBatch) -> dict[str, np.ndarray]:
    """Modality -> which of its variables the patients of a batch have, bool (n v)."""
    arrays = jax.tree.map(lambda array: array[None], dict(batch.arrays))
    return dict(found_in(self.model.schema.modalities, arrays))

  def present(
    self, batch: PatientBatch, found: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Modality -> which patients of a batch have any data of it, bool (n).

    Args:
      batch: of patients.
      found: of the same batch, from `found`.
    """
    count = len(batch.patients)
    result = {name: np.asarray(of.any(axis=1)) for name, of in found.items()}
    for name in self._packed:  # an entry counts even if it has no measurements
      arrays = batch.arrays[name]
      owned = np.bincount(arrays['owner'][arrays['mask']], minlength=count)
      result[name] = owned[:count] > 0
    return result

  def _arranged(self, examples: Sequence[Example], bucket: int, rows: int) -> Any:
    return arrange(
      self.model.schema,
      self.model.batching,
      examples,
      bucket=bucket,
      rows=rows,
      capacity=self._capacity(rows),
    )

  def _capacity(self, rows: int) -> int:
    """Number of recordings that the program of so many rows holds."""
    batching = self.model.batching
    return recordings_capacity(batching, rows, batching.recordings_per_row)

  def _filled(
    self, examples: Sequence[Example], inside: np.ndarray
  ) -> Iterator[tuple[list[int], int]]:
    """Patients of a bucket, and the rows of a program that holds their recordings.

    Takes the largest program that is at least half full, because rows of padding take as
    long as others.
    """
    waiting = inside.tolist()
    while waiting:
      taken, rows = 0, self._rows[0]
      for more in self._rows:
        held = self._held(examples, waiting[:more], more)
        if 2 * held >= more or not taken:
          taken, rows = held, more
      yield waiting[:taken], rows
      waiting = waiting[taken:]

  def _held(self, examples: Sequence[Example], patients: Sequence[int], rows: int) -> int:
    """Number of these patients, in order, whose recordings fit into a program."""
    most, capacity = self.model.batching.max_recordings, self._capacity(rows)
    for name in self._packed:
      count = [min(most, _entries(examples[index].get(name))) for index in patients]
      fits = int(np.searchsorted(np.cumsum(count), capacity, side='right'))
      patients = patients[:fits]
    return len(patients)

  def _test(self, bucket: int, arrays: Mapping[str, Any]) -> None:
    """Predicts the model's example with the program of these arrays' shapes."""
    model = self.model
    rows = len(arrays['row'])
    example = padded(model.example, model.schema, rows, self._capacity(rows))
    shaped = {}
    for name, each in arrays.items():
      shaped[name] = example[name]
      if name in model.schema.modalities:
        shaped[name] = {key: _grown(example[name][key], to) for key, to in each.items()}
    again = np.asarray(self._compiled[bucket, rows](self._of_model, shaped))[:ROWS]
    difference = np.abs(again - model.answer) / np.maximum(1.0, np.abs(model.answer))
    if not difference.max() <= TOLERANCE:
      raise DataError(
        f'the self-test of the model failed: the prediction of its example differs by '
        f'{difference.max():.3g} (allowed: {TOLERANCE:g}). Do not use it with these '
        'versions of jax and jaxlib on this machine.'
      )


def _grown(array: np.ndarray, to: np.ndarray) -> np.ndarray:
  """The array padded to the shape of another one."""
  widths = [(0, big - small) for small, big in zip(array.shape, to.shape, strict=True)]
  return np.pad(array, widths)


def _entries(arrays: Mapping[str, np.ndarray] | None) -> int:
  """Number of entries of a packed modality of one patient."""
  return 0 if arrays is None else len(next(iter(arrays.values())))
