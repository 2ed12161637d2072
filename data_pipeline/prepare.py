r"""Turns raw tables into a prepared data set (command).

  python -m data_pipeline.prepare --source=mimic_iv --mimic_iv=DIR \
      --mimic_iv_ecg=DIR --task=cvd --out=DIR
  python -m data_pipeline.prepare --source=simulated --patients=2000 --task=los --out=DIR

If interrupted at any point, the same command continues and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import app, flags

from data_pipeline import sources
from data_pipeline.format.dataset import DATASET
from data_pipeline.format.options import require_local_paths
from data_pipeline.format.schema import DataError
from data_pipeline.preparation.build import MAX_DROPPED_RECORDINGS, prepare


def _define_flags() -> None:
  # Not at import, because other commands that use `prepare` define their own flags.
  flags.DEFINE_string('source', None, f'One of {", ".join(sources.names())}.')
  known = [
    f'{name}: {", ".join(sources.load(name).TASKS or ["any name"])}'
    for name in sources.names()
  ]
  flags.DEFINE_string('task', None, f'Task to prepare; {"; ".join(known)}.')
  flags.DEFINE_string('out', None, 'Folder of the data set.')
  flags.DEFINE_string(
    'memory_limit',
    None,
    'Memory limit of DuckDB, for example 4GB; by default half a GB per worker, but at '
    'least one. Python takes about 0.3 GB in addition.',
  )
  flags.DEFINE_integer(
    'workers', None, 'Number of processes; by default one per available processor.', 1
  )
  flags.DEFINE_float(
    'max_dropped_recordings',
    MAX_DROPPED_RECORDINGS,
    'Largest share of missing or unusable ECG recordings; more are an error.',
    lower_bound=0.0,
    upper_bound=1.0,
  )
  flags.DEFINE_string(
    'beam_options',
    None,
    'Write the shards on Apache Beam with these pipeline options (docs/beam.md).',
  )
  flags.DEFINE_string(
    'beam_bucket',
    None,
    "Bucket for the files of Beam's workers if they share no folder: gs://B/FOLDER.",
  )
  flags.DEFINE_string(
    'split',
    'folds',
    'folds: five folds. year_group: the subjects of the last anchor_year_group are the '
    'test subjects of fold 0, which is then the only fold.',
  )
  flags.DEFINE_string(
    'subject_key',
    None,
    'File with the secret key of the subject hashes, shared by the data sets of an '
    'institution; created if absent. By default `subject_key` beside --out.',
  )
  for name, fields in _setting_fields().items():
    field = next(iter(fields.values()))
    usual = field.default
    usual = '' if usual in (None, dataclasses.MISSING) else f' By default {usual}.'
    help_text = f'[{", ".join(fields)}] {field.metadata["help"]}{usual}'
    kinds = {'int': flags.DEFINE_integer, 'bool': flags.DEFINE_boolean}
    define = kinds.get(str(field.type), flags.DEFINE_string)
    define(name, None, help_text)


def _setting_fields() -> dict[str, dict[str, dataclasses.Field[Any]]]:
  """Flag name -> source -> field of its `Settings`."""
  result: dict[str, dict[str, dataclasses.Field[Any]]] = {}
  for source in sources.names():
    for field in dataclasses.fields(sources.load(source).Settings):
      result.setdefault(field.name, {})[source] = field
  return result


def _parse_flags(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _fail(str(error).replace('\n', ' '))


def _fail(message: str) -> NoReturn:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


def _main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    _fail(f'{argv[1]}: not a flag. Write --name=value.')
  given = flags.FLAGS.flag_values_dict()
  settings = {name: given[name] for name in _setting_fields() if given[name] is not None}
  names = (
    'source', 'task', 'out', 'memory_limit', 'workers', 'max_dropped_recordings',
    'split', 'beam_options', 'beam_bucket', 'subject_key',
  )  # fmt: skip
  try:
    if given['out'] is None:
      raise DataError('--out is missing: give the folder of the data set.')
    require_local_paths(
      {f'--{name}': given[name] for name in (*names, *settings) if name != 'beam_bucket'}
    )
    out = prepare(**{name: given[name] for name in names}, **settings)
  except DataError as error:
    _fail(' '.join(str(error).split()))
  metadata = json.loads((out / DATASET).read_text())
  summary = {'out': str(out), 'data_version': metadata['data_version']}
  print(json.dumps({**summary, **metadata['counts']}))


if __name__ == '__main__':
  _define_flags()
  app.run(_main, flags_parser=_parse_flags)
