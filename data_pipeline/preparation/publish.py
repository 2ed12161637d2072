"""Completes a data set after its shards: index, paths, cohort, tfds metadata.

`dataset.json` comes last and marks the data set as finished.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from etils import epath

from data_pipeline.ecg.raw_recording import DESCRIPTION
from data_pipeline.format import examples
from data_pipeline.format.atomic import replacing, write_text
from data_pipeline.format.dataset import COHORT, DATASET, INDEX, RECORDINGS
from data_pipeline.format.schema import NUM_FOLDS, write_json
from data_pipeline.format.subjects import hash_subject
from data_pipeline.preparation import folds, shards, staging
from data_pipeline.preparation.staging import Assignment, Shard
from data_pipeline.sources import Staged

_RECORDING_COLUMNS = {
  'sample_id': pa.int64(), 'study_id': pa.int64(), 'path': pa.string()
}  # fmt: skip


def publish(
  directory: Path,
  staged: Staged,
  assignment: Assignment,
  manifests: Sequence[Mapping[str, Any]],
  *,
  tables: Path,
  key: str,
  request: Mapping[str, Any],
) -> None:
  """Writes everything except the shards.

  Args:
    directory: of the data set, with all shards in it.
    staged: result of the source.
    assignment: of the samples to shards.
    manifests: one per shard, in the same order.
    tables: folder of the sorted tables.
    key: of the subject hashes.
    request: of the user; only the same request continues an interrupted preparation.
  """
  _write_index(directory / INDEX, staged, assignment, manifests)
  cohort = dict(staged.cohort)
  dropped = [one for m in manifests for one in m['recordings_dropped']]
  reasons = Counter(one['reason'] for one in dropped)
  raw_tables = staging.raw_tables(staged.schema)
  for name, table in raw_tables.items():
    _write_recordings(directory / RECORDINGS, assignment, tables / f'{table}.parquet')
    cohort['rows'] = {**cohort['rows'], name: dict(sorted(reasons.items()))}
  write_json(directory / COHORT, cohort)
  if dropped:
    _write_dropped(directory / shards.DROPPED_RECORDINGS, dropped)
  _write_tfds_metadata(directory, staged, assignment.shards, manifests)
  schema = staged.schema.to_json()
  files = {
    shard.name: {
      'records': shard.stop - shard.start,
      'bytes': manifest['file_bytes'],
      'sha256': manifest['sha256'],
    }
    for shard, manifest in zip(assignment.shards, manifests, strict=True)
  }
  write_json(
    directory / DATASET,
    {
      'schema': schema,
      'data_version': _version(schema, files),
      'subject_key': key,
      'folds': _fold_hashes(assignment.folds, key),
      'counts': {
        'samples': assignment.samples.num_rows,
        'subjects': len(assignment.folds.subjects),
        'recordings': sum(_total(manifests, f'n_{name}') for name in raw_tables),
      },
      'files': files,
      'source_versions': staged.versions,
      'request': dict(request),
    },
  )


def _write_index(
  path: Path,
  staged: Staged,
  assignment: Assignment,
  manifests: Sequence[Mapping[str, Any]],
) -> None:
  names = [
    'sample_id',
    'subject_id',
    'prediction_time',
    'label',
    'weight',
    'fold',
    *(f'validates_{k}' for k in range(NUM_FOLDS)),
  ]
  samples = assignment.samples
  samples = samples.set_column(
    samples.schema.get_field_index('prediction_time'), 'prediction_time', samples['seconds']
  )
  columns = {name: samples[name] for name in names}
  file = [s.name for s in assignment.shards for _ in range(s.start, s.stop)]
  columns['file'] = pa.array(file).dictionary_encode()
  for name in shards.PLACE_COLUMNS:
    places = [n for m in manifests for n in m['places'][name]]
    columns[name] = pa.array(places, pa.int64())
  for name in shards.length_columns(staged.schema):
    lengths = [n for m in manifests for n in m['counts'][name]]
    columns[name] = pa.array(lengths, pa.int32())
  columns |= {name: samples[name] for name in staged.schema.attributes}
  with replacing(path) as partial:
    pq.write_table(pa.table(columns), partial)


def _write_recordings(path: Path, assignment: Assignment, table: Path) -> None:
  """Writes the raw file of every recording, including unusable ones."""
  sample_id = assignment.samples['sample_id'].to_numpy()
  described = DESCRIPTION if {*DESCRIPTION} <= {*pq.read_schema(table).names} else {}
  columns = pa.schema(_RECORDING_COLUMNS | described)
  with replacing(path) as partial, pq.ParquetWriter(partial, columns) as writer:
    # Shard by shard, because the whole table may be large, and its row groups depend on the
    # number of DuckDB's threads.
    for shard in assignment.shards:
      position = pc.field('position')
      inside = (position >= shard.start) & (position < shard.stop)
      names = ['position', *columns.names[1:]]
      rows = pq.read_table(table, columns=names, filters=inside)
      samples = pa.array(sample_id[rows['position'].to_numpy()], pa.int64())
      rows = rows.drop_columns(['position']).add_column(0, 'sample_id', samples)
      writer.write_table(rows.cast(columns))


def _write_dropped(path: Path, dropped: Sequence[Mapping[str, Any]]) -> None:
  """Writes the unusable recordings, with reasons."""
  text = io.StringIO()
  table = csv.DictWriter(text, ['study_id', 'path', 'reason', 'detail'])
  table.writeheader()
  table.writerows(dropped)
  write_text(path, text.getvalue())


def _write_tfds_metadata(
  directory: Path,
  staged: Staged,
  all_shards: Sequence[Shard],
  manifests: Sequence[Mapping[str, Any]],
) -> None:
  template = tfds.core.ShardedFileTemplate(
    data_dir=epath.Path(directory),
    dataset_name=staged.schema.task,
    filetype_suffix='tfrecord',
  )
  infos = []
  for k in range(NUM_FOLDS):
    inside = [i for i, shard in enumerate(all_shards) if shard.fold == k]
    if not inside:
      continue  # fewer subjects without a label than folds
    infos.append(
      tfds.core.SplitInfo(
        name=f'fold{k}',
        shard_lengths=[all_shards[i].stop - all_shards[i].start for i in inside],
        num_bytes=sum(manifests[i]['file_bytes'] for i in inside),
        filename_template=template.replace(split=f'fold{k}'),
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=os.fspath(directory),
    features=examples.tfds_features(staged.schema),
    split_infos=infos,
    filename_template=template,
    description=f'Task {staged.schema.task} of {staged.schema.source}.',
    check_data=False,
  )


def _fold_hashes(division: folds.Folds, key: str) -> dict[str, dict[str, list[str]]]:
  hashes = [hash_subject(subject, key) for subject in division.subjects]
  chosen = lambda mask: sorted(h for h, inside in zip(hashes, mask, strict=True) if inside)
  return {
    str(k): {
      'test': chosen(division.fold == k),
      'validation': chosen(division.validates[:, k] == 1),
    }
    for k in range(NUM_FOLDS)
  }


def _version(schema: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
  """Hash of everything that a model can be trained on: 16 hex digits."""
  contents = {name: entry['sha256'] for name, entry in files.items()}
  text = json.dumps([schema, contents], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _total(manifests: Sequence[Mapping[str, Any]], name: str) -> int:
  return sum(sum(m['counts'].get(name, ())) for m in manifests)
