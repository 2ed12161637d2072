"""Modalities of a schema by kind, and with other modalities, for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from data_pipeline.format.modalities import Events, Grid, Modality
from data_pipeline.format.schema import Item, Schema


def events(schema: Schema) -> dict[str, tuple[Item, ...]]:
  """Event modality -> its items."""
  return {n: each.items for n, each in schema.modalities.items() if type(each) is Events}


def grids(schema: Schema) -> dict[str, Grid]:
  """Grid modality -> its grid."""
  return {n: each for n, each in schema.modalities.items() if type(each) is Grid}


def replaced(schema: Schema, **modalities: Modality) -> Schema:
  """The schema with some modalities in another form, or with more of them."""
  return dataclasses.replace(schema, modalities={**schema.modalities, **modalities})


def changed(schema: Schema, modality: str, **fields: Any) -> Schema:
  """The schema with other fields of one modality."""
  other = dataclasses.replace(schema.modalities[modality], **fields)
  return replaced(schema, **{modality: other})
