"""Lists all kinds of modalities of models.

A new kind is one class here and one in `data_pipeline.format.modalities` (docs/design.md,
"Modalities").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.format.modalities import Modality as Spec
from medm2t_jax.modalities.ablation import Ablation
from medm2t_jax.modalities.base import Modality, Setting
from medm2t_jax.modalities.events import Events
from medm2t_jax.modalities.grid import Grid
from medm2t_jax.modalities.notes import Notes
from medm2t_jax.modalities.static import Static
from medm2t_jax.modalities.waveform import Waveform
from medm2t_jax.modalities.windows import Windows, windows_of
from medm2t_jax.models.options import ModelOptions

KINDS: tuple[type[Modality], ...] = (Static, Events, Grid, Waveform, Notes)


def kind_of(spec: Spec) -> type[Modality]:
  """The model class for a modality of a data set.

  Raises:
    TypeError: `KINDS` lacks its kind.
  """
  for kind in KINDS:
    if type(spec) is kind.of:
      return kind
  raise TypeError(f'no model reads modalities of kind {spec.kind!r}')


def published() -> dict[str, Any]:
  """The options of `config.model` with which the paper encodes modalities."""
  return {key: value for kind in KINDS for key, value in kind.published.items()}


def ablations(options: ModelOptions, specs: Mapping[str, Spec]) -> Iterator[Ablation]:
  """The ablations of all kinds, including those that do not apply to a data set.

  Args:
    options: `config.model` of the full model.
    specs: of the data set, by name.
  """
  for kind in KINDS:
    found = {name: spec for name, spec in specs.items() if type(spec) is kind.of}
    for each in kind.ablations(options, found):
      reason = '' if found else f'the data set has no {kind.described}'
      yield dataclasses.replace(each, reason=each.reason or reason)


def windows(
  options: ModelOptions, specs: Mapping[str, Spec], observation_hours: float | None
) -> dict[str, Windows]:
  """Time windows by modality, for all modalities of a data set that have them."""
  return {
    name: windows_of(name, options, observation_hours)
    for name, spec in specs.items()
    if kind_of(spec).in_windows
  }


def make(specs: Mapping[str, Spec], setting: Setting) -> tuple[Modality, ...]:
  """The modalities of a model.

  Args:
    specs: of the data set, by name, in model order.
    setting: determines all sizes.

  Raises:
    DataError: an option does not fit one of them.
  """
  return tuple(kind_of(spec).make(name, spec, setting) for name, spec in specs.items())
