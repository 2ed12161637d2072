"""Lists all kinds of modalities of data sets (docs/design.md, "Modalities").

A new kind is one class here and one in `medm2t_jax.modalities`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipeline.format.items import DataError
from data_pipeline.format.modalities.base import Modality
from data_pipeline.format.modalities.events import Events
from data_pipeline.format.modalities.grid import Grid
from data_pipeline.format.modalities.notes import Notes
from data_pipeline.format.modalities.static import Static
from data_pipeline.format.modalities.waveform import Waveform

KINDS: tuple[type[Modality], ...] = (Static, Events, Grid, Waveform, Notes)


def from_json(fields: Mapping[str, Any], where: object) -> Modality:
  """The modality described by an entry of dataset.json: its `kind`, and that kind's fields.

  Args:
    fields: of the entry.
    where: the file, for the message.

  Raises:
    DataError: the kind is unknown to this code.
  """
  for kind in KINDS:
    if kind.kind == fields['kind']:
      return kind.from_json(fields)
  known = ', '.join(kind.kind for kind in KINDS)
  raise DataError(
    f'{where}: modality {fields["name"]} is of kind {fields["kind"]!r}; this code knows '
    f'{known}. Use the version of medm2t_jax that wrote it.'
  )
