"""Batches of samples in memory are those of the tf.data pipeline."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.modalities.base import arrays_of
from data_pipeline.reading import input_pipeline, planning
from data_pipeline.reading.arranging import arrange, bucket_of
from data_pipeline.reading.batching import Batching
from tests.support import staging_fixture


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  return open_dataset(staging_fixture.build_dataset(tmp_path_factory.mktemp('data')))


@pytest.fixture(scope='module')
def examples(dataset):
  """Sample id -> modality -> arrays."""
  builder = tfds.builder_from_directory(dataset.directory)
  found = {}
  for split in builder.info.splits:
    for example in tfds.as_numpy(builder.as_dataset(split=split)):
      flat = {'/'.join(key): value for key, value in _leaves(example)}
      found[int(flat['sample_id'])] = {
        name: arrays_of(name, modality, flat)
        for name, modality in dataset.schema.modalities.items()
      }
  return found


def _leaves(tree, path=()):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _leaves(value, (*path, key))
    else:
      yield (*path, key), value


def test_batches_of_every_kind(dataset, examples):
  schema = dataset.schema
  padded = [name for name, each in schema.modalities.items() if each.layout == 'padded']
  # Some samples are longer than the last bucket, and some have too many recordings.
  batching = Batching(
    buckets=tuple(dict.fromkeys(padded, length) for length in (4, 16)),
    max_recordings=2, recordings_per_row=2.0,
  )  # fmt: skip
  plan = planning.plan_epoch(
    dataset, np.arange(len(dataset)), modalities=schema.names, batching=batching,
    batch_rows=8,
  )  # fmt: skip
  assert plan.overflowing and any(plan.truncated.values())
  steps = input_pipeline.batches(dataset, plan, modalities=schema.names, batching=batching)
  for bucket, batch in zip(plan.bucket, steps, strict=True):
    expected = jax.tree.map(lambda array: array[0], dict(batch))
    rows = expected['row'][expected['row'] >= 0]
    own = [examples[int(dataset.index['sample_id'][row])] for row in rows]
    found = arrange(
      schema, batching, own, bucket=int(bucket), rows=8, capacity=plan.capacity
    )
    assert found.pop('row').tolist() == [*range(len(rows)), *[-1] * (8 - len(rows))]
    for name, arrays in found.items():
      assert arrays.keys() == expected[name].keys()
      for key, array in arrays.items():
        assert array.dtype == expected[name][key].dtype
        np.testing.assert_array_equal(array, expected[name][key], err_msg=f'{name}.{key}')
    # The pipeline may move the last rows of a bucket to a longer one.
    assert all(bucket_of(schema, batching, each) <= bucket for each in own)


def test_a_modality_that_is_not_there(dataset, examples):
  schema = dataset.schema
  batching = Batching(
    buckets=(
      {name: 8 for name in schema.names if schema.modalities[name].layout == 'padded'},
    )
  )
  batch = arrange(schema, batching, [{}], bucket=0, rows=2, capacity=4)
  for name, modality in schema.modalities.items():
    assert not modality.found(
      jax.tree.map(lambda array: array[np.newaxis], batch[name]), (1, 2)
    ).any()


def test_what_does_not_fit(dataset, examples):
  schema, batching = dataset.schema, Batching()
  schema = schema.only(
    [n for n, each in schema.modalities.items() if each.layout == 'packed']
  )
  most = max(examples.values(), key=lambda each: len(each[schema.names[0]]['time']))
  with pytest.raises(ValueError, match='do not fit into 1 rows'):
    arrange(schema, batching, [most, most], bucket=0, rows=1, capacity=8)
  with pytest.raises(ValueError, match='more than 1 entries'):
    arrange(schema, batching, [most, most], bucket=0, rows=2, capacity=1)
