"""Reads batches from a prepared data set, with tf.data.

The plan lists the rows of each step, the index where their records are. A step is read by
random access (without ECG, only the heads of its records), parsed by one `parse_example`,
and decoded to padded arrays of fixed length; the ECG recordings of a device's batch are
concatenated. docs/design.md lists the arrays of a batch.

Letters: d devices of this host, b batch rows, n events, m recordings, s samples, l leads, g
grid steps, v signals, t terms.
"""

# TensorFlow's type stubs are narrower than its functions.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipeline.format import records
from data_pipeline.format.dataset import Dataset
from data_pipeline.format.modalities import Modality
from data_pipeline.format.modalities.base import Feature, feature_name
from data_pipeline.format.schema import DataError, Schema, Target
from data_pipeline.reading.alignment import Alignment
from data_pipeline.reading.batching import Batching
from data_pipeline.reading.planning import Plan, buckets_of

Batch = Mapping[str, Any]
Stored = Mapping[str, tf.Tensor]  # array -> its bytes, of every row


def batches(
  dataset: Dataset,
  plan: Plan,
  *,
  modalities: Sequence[str],
  batching: Batching,
  start_step: int = 0,
  host: int = 0,
  hosts: int = 1,
  signals: bool = True,
) -> Iterator[Batch]:
  """The steps of a plan, in order; reading ahead starts at once.

  Args:
    dataset: the data set that the plan was made for.
    plan: of one epoch, made with the same modalities and capacities.
    modalities: to include in the batches; nothing else is parsed.
    batching: capacities of a batch.
    start_step: the first step; skipping costs nothing.
    host: index of this host.
    hosts: number of hosts.
    signals: whether to include heavy arrays, the ECG signals; without them only the heads
      of records are read.

  Returns:
    An iterator over batches of NumPy arrays, with a leading axis of this host's devices.

  Raises:
    DataError: the data set lacks a modality, or a shard is corrupt or missing.
  """
  unknown = sorted(set(modalities) - set(dataset.schema.modalities))
  if unknown:
    raise DataError(
      f'{dataset.directory} has no modality {", ".join(unknown)}; it has '
      f'{", ".join(dataset.schema.modalities)}.'
    )
  _hide_accelerators()
  stored = dataset.stored or dataset.schema
  held = [name for name in modalities if dataset.holds(name)]
  rows = plan.local_rows(host, hosts)[start_step:]
  parser = _parser_of(stored, plan, held, batching, signals=signals)
  reader = _Reader(dataset, signals=parser.reads_signals)
  buckets = buckets_of(dataset, batching, held)
  padded = [[bucket[name] for name in parser.padded] for bucket in buckets]
  padded = np.array(padded, np.int32).reshape(len(buckets), len(parser.padded))
  padded = padded[plan.bucket[start_step:]]

  # No autograph: no control flow depends on tensors, and it costs a quarter of the start.
  @tf.autograph.experimental.do_not_convert
  def load(step_rows: tf.Tensor, lengths: tf.Tensor) -> Batch:
    flat = tf.reshape(step_rows, [-1])
    serialized = tf.numpy_function(reader, [flat], tf.string, stateful=False)
    serialized = tf.ensure_shape(serialized, flat.shape)
    return parser.traced(serialized, step_rows, lengths)

  steps = tf.data.Dataset.from_tensor_slices((rows, padded))
  steps = steps.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  options = tf.data.Options()
  # Reads ahead before the first step is requested.
  options.experimental_warm_start = True  # pyright: ignore[reportAttributeAccessIssue]
  steps = steps.prefetch(tf.data.AUTOTUNE).with_options(options)
  read = _iterate(steps.as_numpy_iterator(), reader)
  if dataset.stored is None:
    return read
  alignment = Alignment(dataset.schema, dataset.stored)
  return (alignment(batch, modalities) for batch in read)


def _iterate(steps: Iterator[Batch], reader: _Reader) -> Iterator[Batch]:
  try:
    yield from steps
  except tf.errors.OpError as error:
    # TensorFlow wraps exceptions of Python functions, so the reader keeps the cause.
    if reader.error is None:
      raise
    raise reader.error from error


class _Reader:
  """Reads the records of index rows, or only their heads; b'' for padding."""

  def __init__(self, dataset: Dataset, *, signals: bool):
    self.error: DataError | None = None
    self._paths = [dataset.directory / name for name in dataset.files]
    self._file = dataset.index['file']
    self._offset = dataset.index['offset']
    self._bytes = dataset.index['bytes']
    self._head_bytes = dataset.index['head_bytes']
    self._head_crc = dataset.index['head_crc']
    self._read = self._read_record if signals else self._read_head

  def __call__(self, rows: np.ndarray) -> np.ndarray:
    result = np.empty(len(rows), object)
    try:
      for i, row in enumerate(rows.tolist()):
        result[i] = b'' if row < 0 else self._read(row)
    except DataError as error:
      self.error = error
      raise
    return result

  def _read_record(self, row: int) -> bytes:
    path = self._paths[self._file[row]]
    return records.read_record(path, int(self._offset[row]), int(self._bytes[row]), row)

  def _read_head(self, row: int) -> bytes:
    return records.read_head(
      self._paths[self._file[row]],
      int(self._offset[row]),
      int(self._head_bytes[row]),
      int(self._head_crc[row]),
      row,
    )


def _parser_of(
  schema: Schema,
  plan: Plan,
  modalities: Sequence[str],
  batching: Batching,
  *,
  signals: bool,
) -> _Parser:
  """The parser of a pass; equal passes share it and its graph."""
  held = tuple((n, each) for n, each in schema.modalities.items() if n in modalities)
  return _parser(schema.target, held, plan.capacity, batching.max_recordings, signals)


@functools.lru_cache(maxsize=64)
def _parser(*what: Any) -> _Parser:
  return _Parser(*what)


class _Parser:
  """Turns the serialised examples of one step into a batch."""

  def __init__(
    self,
    target: Target,
    modalities: Sequence[tuple[str, Modality]],
    capacity: int,
    max_recordings: int,
    signals: bool,
  ):
    self._target = target
    self._modalities = dict(modalities)
    self.padded = tuple(
      name for name, each in self._modalities.items() if each.layout == 'padded'
    )
    self._capacity = capacity
    self._max_recordings = max_recordings
    # A graph, built once for each shape of the rows, because building it takes most of the
    # time before the first step.
    self.traced = tf.function(self, autograph=False)
    self._arrays = {
      name: {
        key: feature
        for key, feature in each.arrays.items()
        if feature.batch != 'unread' and (signals or not feature.heavy)
      }
      for name, each in self._modalities.items()
    }
    self.reads_signals = any(
      feature.heavy for arrays in self._arrays.values() for feature in arrays.values()
    )

  def __call__(self, serialized: tf.Tensor, rows: tf.Tensor, lengths: tf.Tensor) -> Batch:
    """Parses a step.

    Args:
      serialized: string (d x b,).
      rows: int32 (d, b).
      lengths: int32 (padded modalities,): padded lengths of the step's bucket.
    """
    parsing: dict[str, Any] = {
      feature_name(name, self._modalities[name], key): tf.io.FixedLenFeature(
        [], tf.string, default_value=''
      )
      for name, arrays in self._arrays.items()
      for key in arrays
    }
    parsing['label'] = tf.io.FixedLenFeature([], tf.string, default_value='')
    parsing['weight'] = tf.io.FixedLenFeature([], tf.float32, default_value=0.0)
    parsed = tf.io.parse_example(serialized, parsing)
    label, weight = self._labels(parsed, rows)
    batch: Batch = {'label': label, 'weight': weight, 'row': rows}
    for name, modality in self._modalities.items():
      stored = {
        key: parsed[feature_name(name, modality, key)] for key in self._arrays[name]
      }
      if modality.layout == 'fixed':
        arrays = self._fixed(name, stored, rows)
      elif modality.layout == 'padded':
        arrays = self._pad(name, stored, rows, lengths[self.padded.index(name)])
      else:
        arrays = self._pack(name, stored, rows)
      flags = [key for key, each in self._arrays[name].items() if each.batch == 'flag']
      batch[name] = {**arrays, **{key: arrays[key] > 0 for key in flags}}
    return batch

  def _labels(
    self, parsed: Mapping[str, tf.Tensor], rows: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Label (d, b), or (d, b, l) for a multilabel target, and weight (d, b).

    A sample without any label has weight 0; unknown entries of a vector are -1.
    """
    length = self._target.label_length
    label = tf.io.decode_raw(parsed['label'], tf.float32, fixed_length=4 * length)
    label = tf.reshape(label, tf.concat([tf.shape(rows), [length]], 0))
    missing = tf.math.is_nan(label)
    weight = tf.reshape(parsed['weight'], tf.shape(rows))
    weight = tf.where(tf.reduce_all(missing, axis=-1), tf.zeros_like(weight), weight)
    if self._target.kind == 'multilabel':
      return tf.where(missing, -tf.ones_like(label), label), weight
    return tf.where(missing, tf.zeros_like(label), label)[..., 0], weight

  def _fixed(self, name: str, stored: Stored, rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """Arrays whose shape is the same for all samples: (d, b, *shape)."""
    result = {}
    for key, spec in self._arrays[name].items():
      size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
      decoded = tf.zeros([0], spec.dtype) if size == 0 else _decode(stored[key], spec, size)
      array = tf.reshape(decoded, tf.concat([tf.shape(rows), spec.shape], 0))
      if spec.padding:
        present = tf.reshape(
          rows >= 0, tf.concat([tf.shape(rows), [1] * len(spec.shape)], 0)
        )
        array = tf.where(present, array, tf.cast(spec.padding, array.dtype))
      result[key] = array
    return result

  def _pad(
    self, name: str, stored: Stored, rows: tf.Tensor, length: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """The most recent `length` entries of each row: arrays (d, b, n, ...), and `mask`."""
    specs, result = self._arrays[name], {}
    # Arrays with the same number of bytes per entry are cut and padded together.
    alike = {
      key for key, spec in specs.items() if (spec.shape, spec.row_bytes) == ((None,), 4)
    }
    for group in (alike, *({key} for key in specs.keys() - alike)):
      keys = [key for key in specs if key in group]
      if not keys:
        continue
      spec = specs[keys[0]]
      joined = tf.stack([stored[key] for key in keys])
      decoded = _decode(_last_rows(joined, spec, length), spec, length * spec.row_bytes)
      shape = tf.concat([[len(keys)], tf.shape(rows), [length], spec.shape[1:]], 0)
      for key, array in zip(keys, tf.unstack(tf.reshape(decoded, shape)), strict=True):
        same = array.dtype == specs[key].dtype
        array = array if same else tf.bitcast(array, specs[key].dtype)
        if array.dtype.is_floating:
          # NaN stands for no value; another array then has the category.
          array = tf.where(tf.math.is_nan(array), tf.zeros_like(array), array)
        result[key] = array
    first = next(iter(specs))
    count = tf.reshape(_row_count(stored[first], specs[first]), tf.shape(rows))
    ordered = {key: result[key] for key in specs}
    return {**ordered, 'mask': tf.range(length) < count[..., None]}

  def _pack(self, name: str, stored: Stored, rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """The entries of a device's rows, concatenated: arrays (d, m, ...)."""
    capacity, result = self._capacity, {}
    for key, spec in self._arrays[name].items():
      kept = _last_rows(stored[key], spec, self._max_recordings)
      joined = tf.strings.reduce_join(tf.reshape(kept, tf.shape(rows)), axis=1)
      padded = _decode(joined, spec, capacity * spec.row_bytes)
      shape = tf.concat([tf.shape(rows)[:1], [capacity], spec.shape[1:]], 0)
      result[key] = tf.reshape(padded, shape)
    key, spec = next(iter(self._arrays[name].items()))
    count = _row_count(stored[key], spec)
    count = tf.reshape(tf.minimum(count, self._max_recordings), tf.shape(rows))
    # Slot i belongs to the first row after which more than i recordings are packed.
    ends = tf.cumsum(count, axis=1)
    slots = tf.tile(tf.range(capacity)[None], [tf.shape(rows)[0], 1])
    mask = slots < ends[:, -1:]
    owner = tf.searchsorted(ends, slots, side='right')
    return {**result, 'owner': tf.where(mask, owner, 0), 'mask': mask}


def _row_count(serialized: tf.Tensor, spec: Feature) -> tf.Tensor:
  return tf.strings.length(serialized) // spec.row_bytes


def _last_rows(serialized: tf.Tensor, spec: Feature, count: tf.Tensor | int) -> tf.Tensor:
  """The last `count` rows of arrays given as bytes."""
  size = tf.strings.length(serialized)
  start = tf.maximum(size - count * spec.row_bytes, 0)
  return tf.strings.substr(serialized, start, size - start)


def _decode(serialized: tf.Tensor, spec: Feature, size: tf.Tensor | int) -> tf.Tensor:
  """Arrays from bytes, padded with zeros to `size` bytes."""
  return tf.io.decode_raw(serialized, spec.dtype, fixed_length=size)


def _hide_accelerators() -> None:
  """Hides GPUs from TensorFlow, which would take all their memory."""
  if tf.config.get_visible_devices('GPU'):
    tf.config.set_visible_devices([], 'GPU')
