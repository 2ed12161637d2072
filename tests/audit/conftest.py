"""A small static data set, a trained fold of it, and ways to spoil copies of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline.format import records
from data_pipeline.format.dataset import open_dataset
from medm2t_jax.experiment import read
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import train
from tests.support import static_data


@pytest.fixture(scope='session')
def static_folder(tmp_path_factory):
  return static_data.build(tmp_path_factory.mktemp('static'))


@pytest.fixture(scope='session')
def static_dataset(static_folder):
  return open_dataset(static_folder)


@pytest.fixture(scope='session')
def trained(static_dataset, tmp_path_factory):
  """A fold whose multimodal stage is complete."""
  config = static_data.config(static_dataset.directory)
  config.stages = 'multimodal'
  config.recipe.multimodal.update(batch_size=16, epochs=1, starts_from=())
  folds = make_runs(read(config), static_dataset, tmp_path_factory.mktemp('workdir'))
  workdir.claim(folds[0].workdir, folds[0].config, static_dataset.version)
  train.train(folds)
  return folds[0]


@pytest.fixture(scope='session')
def spoiled_static(tmp_path_factory, static_dataset):
  """Data sets with a changed static table: `(change, subjects=60) -> Dataset`.

  `change` gets the static table with the columns `label`, `subject_id` and `fold`.
  """

  def build(change, subjects=60):
    def spoil(raw):
      static = pd.read_parquet(raw / 'static.parquet')
      samples = pd.read_parquet(raw / 'samples.parquet')
      known = pd.DataFrame({n: static_dataset.index[n] for n in ('sample_id', 'fold')})
      table = static.merge(samples[['sample_id', 'label', 'subject_id']], on='sample_id')
      table = change(table.merge(known, on='sample_id', how='left'))
      table[static.columns].to_parquet(raw / 'static.parquet')

    folder = tmp_path_factory.mktemp('spoiled')
    return open_dataset(static_data.build(folder, change=spoil, subjects=subjects))

  return build


@pytest.fixture
def with_feature(folder, tmp_path):
  """A copy of the small data set with a changed record: `(name, dtype, change)`.

  The first record for which `change` returns an array gets it in place of the feature.
  """

  def build(name, dtype, change):
    out = tmp_path / 'copy'
    shutil.copytree(folder / 'out', out)
    table = pq.read_table(out / 'index.parquet').to_pandas()
    for number, row in table.iterrows():
      path = out / row['file']
      payload = records.read_record(path, row['offset'], row['bytes'], number)
      example = tf_example_pb2.Example.FromString(payload[: row['head_bytes']])
      stored = example.features.feature[name].bytes_list.value
      changed = change(np.frombuffer(stored[0], dtype).copy())
      if changed is None:
        continue
      stored[0] = changed.astype(dtype).tobytes()
      head = example.SerializeToString(deterministic=True)
      assert len(head) == row['head_bytes']
      with path.open('r+b') as shard:
        shard.seek(row['offset'])
        shard.write(records.frame(head + payload[len(head) :]))
      table.loc[number, 'head_crc'] = records.checksum(head)
      schema = pq.read_schema(out / 'index.parquet')
      pq.write_table(pa.Table.from_pandas(table, schema), out / 'index.parquet')
      return open_dataset(out)
    raise AssertionError('no record to change')

  return build


@pytest.fixture
def renamed():
  """Renames a static column of a data set in place: `(directory, name)`."""

  def rename(directory, name):
    path = directory / 'dataset.json'
    metadata = json.loads(path.read_text())
    static, *_ = metadata['schema']['modalities']
    static['numeric'][1]['name'] = name
    path.write_text(json.dumps(metadata))

  return rename
