"""Batches from a prepared data set, with tf.data.

The plan says which rows make each step, the index where their records are. A step is
read by random access (without ECG, only the heads of its records), parsed by one
`parse_example`, and decoded to padded arrays of fixed length; ECG recordings of a
device's batch are packed end to end. docs/design.md lists the arrays of a batch.

Letters: d devices of this host, b batch rows, n events, m recordings, s samples, l
leads, g grid steps, v signals, t terms.
"""

# TensorFlow's type stubs are narrower than its functions.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipeline.format import examples, records
from data_pipeline.format.dataset import Dataset
from data_pipeline.format.examples import Feature
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.reading.alignment import Alignment
from data_pipeline.reading.planning import Plan

Batch = Mapping[str, Any]

_EVENT_ARRAYS = ('item', 'value', 'category', 'time')
_ECG_ARRAYS = ('signal', 'gain', 'time', 'measurements', 'measurements_mask', 'terms')


def batches(
  dataset: Dataset,
  plan: Plan,
  *,
  modalities: Sequence[str],
  config: Any,
  start_step: int = 0,
  host: int = 0,
  hosts: int = 1,
  signals: bool = True,
) -> Iterator[Batch]:
  """The steps of a plan, in order; reading ahead starts at once.

  Args:
    dataset: the data set that the plan was made for.
    plan: of one epoch, made with the same modalities and config.
    modalities: those that the batches hold; nothing else is parsed.
    config: with `data.buckets` and `data.max_recordings`.
    start_step: the first step; skipping costs nothing.
    host: index of this host.
    hosts: number of hosts.
    signals: whether the batches hold `ecg/signal`; without it only heads are read.

  Returns:
    An iterator over batches of NumPy arrays, with this host's devices in front.

  Raises:
    DataError: a modality that the data set lacks, or a corrupt or missing shard.
  """
  unknown = sorted(set(modalities) - set(dataset.schema.modalities))
  if unknown:
    raise DataError(
      f'{dataset.directory}: has no modality {", ".join(unknown)}; it has '
      f'{", ".join(dataset.schema.modalities)}.'
    )
  _hide_accelerators()
  stored = dataset.stored or dataset.schema
  held = [name for name in modalities if name in stored.modalities]
  rows = plan.local_rows(host, hosts)[start_step:]
  reader = _Reader(dataset, signals=signals and 'ecg' in held)
  parser = _Parser(stored, plan, held, config, signals=signals)
  buckets = config.data.buckets or ({},)
  padded = [[bucket[name] for name in parser.events] for bucket in buckets]
  padded = np.array(padded, np.int32).reshape(len(buckets), len(parser.events))
  padded = padded[plan.bucket[start_step:]]

  # No control flow depends on tensors, and converting costs a quarter of the start.
  @tf.autograph.experimental.do_not_convert
  def load(step_rows: tf.Tensor, lengths: tf.Tensor) -> Batch:
    flat = tf.reshape(step_rows, [-1])
    serialized = tf.numpy_function(reader, [flat], tf.string, stateful=False)
    serialized = tf.ensure_shape(serialized, flat.shape)
    return parser(serialized, step_rows, lengths)

  steps = tf.data.Dataset.from_tensor_slices((rows, padded))
  steps = steps.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  options = tf.data.Options()
  # Reads ahead before the first step is asked for.
  options.experimental_warm_start = True  # pyright: ignore[reportAttributeAccessIssue]
  steps = steps.prefetch(tf.data.AUTOTUNE).with_options(options)
  read = _iterate(steps.as_numpy_iterator(), reader)
  if dataset.stored is None:
    return read
  alignment = Alignment(dataset.schema, dataset.stored)
  return (alignment(batch, modalities) for batch in read)


def padding(schema: Schema, *, modalities: Sequence[str], config: Any, rows: int) -> Batch:
  """One device's batch of `rows` rows, all padding, without the device axis.

  It has the dtypes of every batch and the shapes of one in the first bucket, and nothing
  is read for it.

  Args:
    schema: of the data set.
    modalities: those that the batch holds.
    config: as of `batches`.
    rows: b.
  """
  _hide_accelerators()
  plan = Plan(
    bucket=np.zeros(1, np.int32),
    rows=np.full((1, 1, rows), -1, np.int32),
    capacity=config.data.max_recordings,
    truncated={},
    overflowing=0,
  )
  parser = _Parser(schema, plan, modalities, config, signals=True)
  lengths = [config.data.buckets[0][name] for name in parser.events]
  batch = parser(
    tf.constant([b''] * rows), tf.constant(plan.rows[0]), tf.constant(lengths, tf.int32)
  )
  return tf.nest.map_structure(lambda array: array.numpy()[0], batch)


def _iterate(steps: Iterator[Batch], reader: _Reader) -> Iterator[Batch]:
  try:
    yield from steps
  except tf.errors.OpError as error:
    # TensorFlow wraps what a Python function raises; the cause is kept by the reader.
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


class _Parser:
  """Turns the serialised examples of one step into a batch."""

  def __init__(
    self,
    schema: Schema,
    plan: Plan,
    modalities: Sequence[str],
    config: Any,
    *,
    signals: bool,
  ):
    self._target = schema.target
    self.events = tuple(name for name in schema.events if name in modalities)
    self._grids = tuple(name for name in schema.grids if name in modalities)
    self._others = tuple(name for name in ('ecg', 'static') if name in modalities)
    self._capacity = plan.capacity
    self._max_recordings = config.data.max_recordings
    wanted = (
      *(f'events/{name}/' for name in self.events),
      *(f'grid/{name}/' for name in self._grids),
      *(f'{name}/' for name in self._others),
    )
    unread = {'ecg/study_id'} | (set() if signals else {examples.SIGNAL})
    self._specs = {
      name: spec
      for name, spec in examples.features(schema).items()
      if name.startswith(wanted) and name not in unread
    }

  def __call__(self, serialized: tf.Tensor, rows: tf.Tensor, lengths: tf.Tensor) -> Batch:
    """Parses a step.

    Args:
      serialized: string (d x b,).
      rows: int32 (d, b).
      lengths: int32 (event modalities,): padded lengths of the step's bucket.
    """
    parsing: dict[str, Any] = {
      name: tf.io.FixedLenFeature([], tf.string, default_value='') for name in self._specs
    }
    parsing['label'] = tf.io.FixedLenFeature([], tf.string, default_value='')
    parsing['weight'] = tf.io.FixedLenFeature([], tf.float32, default_value=0.0)
    parsed = tf.io.parse_example(serialized, parsing)
    label, weight = self._labels(parsed, rows)
    batch: Batch = {'label': label, 'weight': weight, 'row': rows}
    for i, name in enumerate(self.events):
      batch[name] = self._parse_events(name, parsed, rows, lengths[i])
    for name in self._grids:
      batch[name] = {
        'value': self._fixed(f'grid/{name}/value', parsed, rows),
        'observed': self._fixed(f'grid/{name}/observed', parsed, rows) > 0,
      }
    if 'static' in self._others:
      present = rows[..., None] >= 0
      categorical = self._fixed('static/categorical', parsed, rows)
      batch['static'] = {
        'numeric': self._fixed('static/numeric', parsed, rows),
        'numeric_mask': self._fixed('static/numeric_mask', parsed, rows) > 0,
        'categorical': tf.where(present, categorical, -1),
      }
    if 'ecg' in self._others:
      batch['ecg'] = self._pack_ecg(parsed, rows)
    return batch

  def _labels(
    self, parsed: Mapping[str, tf.Tensor], rows: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Label (d, b) or, of a multilabel target, (d, b, l), and weight (d, b).

    A sample without any label has no weight; unknown entries of a vector are -1.
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

  def _parse_events(
    self, name: str, parsed: Mapping[str, tf.Tensor], rows: tf.Tensor, length: tf.Tensor
  ) -> Batch:
    """The most recent `length` events of each row: arrays (d, b, n)."""
    features = [f'events/{name}/{array}' for array in _EVENT_ARRAYS]
    spec = self._specs[features[0]]
    # All four have four bytes an event, so they are cut and padded as one.
    joined = tf.stack([parsed[feature] for feature in features])
    decoded = _decode(_last_rows(joined, spec, length), spec, length * spec.row_bytes)
    shape = tf.concat([[len(features)], tf.shape(rows), [length]], 0)
    item, value, category, time = tf.unstack(tf.reshape(decoded, shape))
    value = tf.bitcast(value, tf.float32)
    count = tf.reshape(_row_count(parsed[features[0]], spec), tf.shape(rows))
    return {
      'item': item,
      # A category's value is NaN in the record; what it means is in `category`.
      'value': tf.where(tf.math.is_nan(value), tf.zeros_like(value), value),
      'category': category,
      'time': tf.bitcast(time, tf.float32),
      'mask': tf.range(length) < count[..., None],
    }

  def _fixed(
    self, feature: str, parsed: Mapping[str, tf.Tensor], rows: tf.Tensor
  ) -> tf.Tensor:
    """A feature whose shape is the same for all samples: (d, b, *shape)."""
    spec = self._specs[feature]
    size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    if size == 0:
      decoded = tf.zeros([0], spec.dtype)
    else:
      decoded = _decode(parsed[feature], spec, size)
    return tf.reshape(decoded, tf.concat([tf.shape(rows), spec.shape], 0))

  def _pack_ecg(self, parsed: Mapping[str, tf.Tensor], rows: tf.Tensor) -> Batch:
    """The recordings of a device's rows, end to end: arrays (d, m, ...)."""
    capacity = self._capacity
    result = {}
    for array in _ECG_ARRAYS:
      feature = f'ecg/{array}'
      if feature not in self._specs:
        continue
      spec = self._specs[feature]
      kept = _last_rows(parsed[feature], spec, self._max_recordings)
      joined = tf.strings.reduce_join(tf.reshape(kept, tf.shape(rows)), axis=1)
      padded = _decode(joined, spec, capacity * spec.row_bytes)
      shape = tf.concat([tf.shape(rows)[:1], [capacity], spec.shape[1:]], 0)
      result[array] = tf.reshape(padded, shape)
    result['measurements_mask'] = result['measurements_mask'] > 0
    count = _row_count(parsed['ecg/time'], self._specs['ecg/time'])
    count = tf.reshape(tf.minimum(count, self._max_recordings), tf.shape(rows))
    # Slot i belongs to the first row by whose end more than i recordings are packed.
    ends = tf.cumsum(count, axis=1)
    slots = tf.tile(tf.range(capacity)[None], [tf.shape(rows)[0], 1])
    mask = slots < ends[:, -1:]
    owner = tf.searchsorted(ends, slots, side='right')
    result['owner'] = tf.where(mask, owner, 0)
    result['mask'] = mask
    return result


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
  """Leaves GPUs to JAX: TensorFlow would take all their memory."""
  if tf.config.get_visible_devices('GPU'):
    tf.config.set_visible_devices([], 'GPU')
