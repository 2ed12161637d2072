"""A hand-made MEDS data set of a few rows, with labels and a mapping."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import meds
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data_pipeline.sources import Resources, Staged
from data_pipeline.sources.meds import Settings, stage

PREDICTION = dt.datetime(2150, 3, 2, 10)
CREATININE = {
  'id': 'creatinine',
  'unit': 'mg/dL',
  'low': 0.7,
  'high': 60,
  'units': {'umol/L': {'scale': 0.01131}},
  'codes': ['LAB//crea//{unit}'],
}


def at(hours: float) -> dt.datetime:
  """A time relative to the prediction time."""
  return PREDICTION + dt.timedelta(hours=hours)


def mapping(**changes):
  return {'observation_hours': 24, 'events': {'labs': {'items': [CREATININE]}}} | changes


class DataSet:
  """Rows, labels, a mapping and perhaps a task file: written as files and staged."""

  def __init__(self, folder: Path):
    self.folder, self.rows = folder, []
    self.labels = [(1, PREDICTION)]
    self.values = {'boolean_value': [True]}
    self.mapping = mapping()
    self.task: str | None = 'mortality'
    self.task_file = None

  def add(self, code, hours=-1.0, number=None, text=None, subject=1):
    time = None if hours is None else at(hours)
    self.rows.append((subject, time, code, number, text))

  def write(self, shards: int = 1, **changes) -> Settings:
    data, labels = self.folder / 'meds', self.folder / 'labels.parquet'
    schema = meds.DataSchema.schema()
    for k in range(shards):
      columns = list(zip(*self.rows[k::shards], strict=True)) or [[]] * len(schema)
      path = data / f'data/{k}/0.parquet'
      path.parent.mkdir(parents=True, exist_ok=True)
      arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
      pq.write_table(pa.table(arrays, schema=schema), path)
    if self.labels is not None:
      self.write_labels(labels, self.labels, **self.values)
      changes = {'labels': str(labels)} | changes
    if self.task_file is not None:
      text = self.task_file
      text = text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False)
      (self.folder / 'task.yaml').write_text(text)
      changes = {'task_file': self.folder / 'task.yaml'} | changes
    (self.folder / 'mapping.yaml').write_text(yaml.safe_dump(self.mapping))
    changes = {'mapping': str(self.folder / 'mapping.yaml')} | changes
    return Settings(meds=data, **changes)

  def write_labels(self, path: Path, labels, **values) -> None:
    """Writes a label file; a value column is a list, or an arrow array of any type."""
    kinds = {field.name: field.type for field in meds.LabelSchema.schema()}
    columns = {
      'subject_id': [row[0] for row in labels],
      'prediction_time': [row[1] for row in labels],
      **values,
    }
    table = {
      name: of if isinstance(of, pa.Array) else pa.array(of, kinds[name])
      for name, of in columns.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)

  def stage(self, shards: int = 1, **changes) -> Staged:
    """Stages the files.

    Args:
      shards: files of the data.
      changes: fields of the settings.
    """
    settings, out = self.write(shards, **changes), self.folder / 'staged'
    task = settings.task_name(self.task)
    return stage(task, out, settings, Resources(memory_limit='1GB', threads=2))

  def table(self, name: str, *order: str) -> pd.DataFrame:
    table = pd.read_parquet(self.folder / f'staged/{name}.parquet')
    return table.sort_values([*(order or table.columns)], ignore_index=True)

  def events(self, name='labs'):
    found = self.table(f'events_{name}', 'sample_id', 'time', 'item', 'category', 'value')
    return [
      (row.item, None if math.isnan(row.value) else row.value, row.category, row.time)
      for row in found.itertuples()
    ]
