"""One prediction as a tf.train.Example: its features and their serialisation.

Arrays are raw little-endian bytes, so that a batch is parsed by one fixed-length decode per
feature; scalars are plain int64 and float features.

A record is two concatenated messages, which protocol buffers define to equal one message
with the features of both: the head, with all small features, and the rest, the ECG signals.
So a reader that needs no signals can stop after the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline.format.modalities.base import Feature, features_of
from data_pipeline.format.schema import NUM_FOLDS, Schema


def features(schema: Schema) -> dict[str, Feature]:
  """All features of a data set by name, modality by modality (docs/design.md)."""
  result = {
    'subject_id': Feature(np.int64),
    'sample_id': Feature(np.int64),
    'prediction_time': Feature(np.int64),
    'label': Feature(np.float32, (None,)),
    'weight': Feature(np.float32),
    'fold': Feature(np.int64),
    'validates': Feature(np.uint8, (NUM_FOLDS,)),
  }
  for name, modality in schema.modalities.items():
    result |= features_of(name, modality)
  return result


def serialize(
  example: Mapping[str, np.ndarray], specs: Mapping[str, Feature]
) -> tuple[bytes, bytes]:
  """Serialises one example, always to the same bytes.

  Args:
    example: feature name -> array of the feature's dtype and shape.
    specs: from `features`.

  Returns:
    The head, and the heavy features (b'' if the data set has none). Each is a
    `tf.train.Example`, and so is their concatenation.

  Raises:
    ValueError: a feature is absent, unknown, or of another dtype or shape.
  """
  if example.keys() != specs.keys():
    raise ValueError(f'features differ: {sorted(example.keys() ^ specs.keys())}')
  head = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
  rest = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
  for name, spec in specs.items():
    array = np.asarray(example[name])
    fits = len(array.shape) == len(spec.shape) and all(
      want in (None, have) for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if array.dtype != spec.dtype or not fits:
      raise ValueError(f'{name} is {array.dtype} {array.shape}, but the schema says {spec}')
    message = rest if spec.heavy else head
    feature = message.features.feature[name]
    if spec.shape:
      little = array.astype(array.dtype.newbyteorder('<'), order='C', copy=False)
      feature.bytes_list.value.append(little.tobytes())
    elif spec.dtype is np.float32:
      feature.float_list.value.append(float(array))
    else:
      feature.int64_list.value.append(int(array))
  return (
    head.SerializeToString(deterministic=True),
    rest.SerializeToString(deterministic=True),
  )


def deserialize(record: bytes, specs: Mapping[str, Feature]) -> dict[str, np.ndarray]:
  """The features of a record, or of its head: the inverse of `serialize`.

  Args:
    record: both messages of `serialize`, or the first, which lacks the heavy features.
    specs: from `features`; other features of the record are not read.
  """
  message = tf_example_pb2.Example.FromString(record)  # pyright: ignore[reportAttributeAccessIssue]
  feature = message.features.feature
  example = {}
  for name, spec in specs.items():
    if spec.heavy and name not in feature:
      continue
    if spec.shape:
      little = np.dtype(spec.dtype).newbyteorder('<')
      array = np.frombuffer(feature[name].bytes_list.value[0], little)
      shape = [-1 if size is None else size for size in spec.shape]
      example[name] = array.reshape(shape)
    elif spec.dtype is np.float32:
      example[name] = np.float32(feature[name].float_list.value[0])
    else:
      example[name] = np.int64(feature[name].int64_list.value[0])
  return example


def tfds_features(schema: Schema) -> tfds.features.FeaturesDict:
  """The same features as `tfds.features.FeaturesDict`."""
  nested: dict[str, Any] = {}
  for name, spec in features(schema).items():
    *parents, leaf = name.split('/')
    node = nested
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = tfds.features.Tensor(
      shape=spec.shape,
      dtype=spec.dtype,
      encoding=tfds.features.Encoding.BYTES if spec.shape else tfds.features.Encoding.NONE,
    )
  return tfds.features.FeaturesDict(nested)
