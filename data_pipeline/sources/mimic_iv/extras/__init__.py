"""`--extra`: additional modalities of an ICU stay, off by default.

Each is a module with NAME (of its event modality), TABLES (that it reads), and `resolve`,
which writes `resolved_{NAME}.parquet` with the columns of `events.resolve`. Extras are for
tasks on ICU stays (one sample per subject) and end at the prediction time.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from data_pipeline.format.modalities import Events, Modality
from data_pipeline.format.options import closest
from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.items import items
from data_pipeline.sources.common.raw_tables import RawTables, is_there
from data_pipeline.sources.mimic_iv import events
from data_pipeline.sources.mimic_iv.extras import medications, urine_output, ventilation
from data_pipeline.sources.mimic_iv.tasks import TASKS
from data_pipeline.sources.mimic_iv.tasks.task import Task

# In the order of the model.
_EXTRAS = (medications, urine_output, ventilation)
NAMES = tuple(extra.NAME for extra in _EXTRAS)


def named(text: str | None) -> str | None:
  """The comma-separated names in `text`, each once and in a fixed order; None: none.

  Raises:
    DataError: a name is unknown.
  """
  wanted = {name.strip() for name in (text or '').split(',')} - {''}
  for name in sorted(wanted):
    if name not in NAMES:
      near = closest(name, NAMES)
      hint = '' if near is None else f' (did you mean {near}?)'
      raise DataError(f'--extra={name}: give some of {", ".join(NAMES)}{hint}.')
  return ','.join(name for name in NAMES if name in wanted) or None


def check_task(text: str | None, task: Task) -> None:
  """Checks that the task may have these extras.

  Raises:
    DataError: its samples are not ICU stays.
  """
  if text and not task.of_stays:
    allowed = ', '.join(each.name for each in TASKS if each.of_stays)
    raise DataError(
      f'--extra={text}: not for task {task.name}; extras are for tasks whose samples are '
      f'ICU stays: {allowed}.'
    )


def check_tables(text: str | None, root: Path) -> list[str]:
  """Notes on tables of these extras that the raw data lack.

  Raises:
    DataError: all tables of an extra are missing.
  """
  notes = []
  for extra in _chosen(text):
    absent = [table for table in extra.TABLES if not is_there(root, table)]
    if len(absent) == len(extra.TABLES):
      raise DataError(
        f'{root}: --extra={extra.NAME} reads {" and ".join(absent)}, but there is no such '
        'table (.csv.gz, .csv or .parquet). Fetch it, or remove the extra.'
      )
    notes += [
      f'--extra={extra.NAME}: the raw data have no {table}, so nothing of it is read.'
      for table in absent
    ]
  return notes


def chart_itemids(text: str | None, *, words: bool | None = None) -> list[int]:
  """Raw itemids of chartevents that the extras read; `words` as in ventilation."""
  if ventilation not in _chosen(text):
    return []
  return ventilation.itemids('chartevents', words=words)


def write(
  raw: RawTables,
  root: Path,
  text: str | None,
  availability: str,
  scratch: Path,
  staging: Path,
) -> tuple[dict[str, Modality], dict[str, dict[str, int]]]:
  """Writes `events_{name}.parquet` of every extra.

  Args:
    raw: with the tables `samples` and `windows`.
    root: the folder of MIMIC-IV.
    text: of `named`.
    availability: 'charttime' or 'storetime'.
    scratch: with the scanned chartevents.
    staging: the folder to write to.

  Returns:
    The modalities, and counts by table (named `{extra}: {table}`) and extra.
  """
  modalities: dict[str, Modality] = {}
  rows: dict[str, dict[str, int]] = {}
  for extra in _chosen(text):
    name = extra.NAME
    counts = extra.resolve(raw, root, availability, scratch)
    rows |= {f'{name}: {table}': reasons for table, reasons in counts.items()}
    rows[name] = events.write_events(
      raw, name, scratch / f'resolved_{name}.parquet', availability,
      staging / f'events_{name}.parquet',
    )  # fmt: skip
    modalities[name] = Events(items(name))
  return modalities, rows


def _chosen(text: str | None) -> list[ModuleType]:
  return [extra for extra in _EXTRAS if extra.NAME in (text or '').split(',')]
