"""Sources: each folder turns one raw format into staging parquet (docs/design.md)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from data_pipeline.schema import Schema


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user may choose about a preparation, for every source.

  Attributes:
    roots: raw folders by flag name, for example {'mimic_iv': DIR, 'mimic_iv_ecg': DIR}.
    availability: which time makes an event known: 'charttime' or 'storetime'.
    static: 'core' or 'extended' static columns (CVD only).
    memory_limit: DuckDB's memory limit, for example '4GB'.
    threads: threads of DuckDB and processes of ECG conditioning.
  """

  roots: dict[str, Path]
  availability: Literal['charttime', 'storetime'] = 'charttime'
  static: Literal['core', 'extended'] = 'core'
  memory_limit: str = '4GB'
  threads: int = 2


@dataclasses.dataclass(frozen=True)
class Staged:
  """What `stage` returns beside the staging files.

  Attributes:
    schema: the data set's schema.
    cohort: {'steps': [{'step', 'samples', 'subjects'}], 'rows': {table: {reason: n}}}.
    versions: name and version of each raw data set that was read.
  """

  schema: Schema
  cohort: dict[str, Any]
  versions: dict[str, str]
