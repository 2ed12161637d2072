"""The model's interface to a modality, and the definition of a stage."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from medm2t_jax.models.trunk.columns import ColumnKind

MULTIMODAL = 'multimodal'  # the last stage, which makes the final predictions


@dataclasses.dataclass(frozen=True)
class Stage:
  """A unit of training.

  Attributes:
    modality: the modality that it reads; None: all of them together.
    part: the part of the modality's encoder for whose units it predicts; None: the whole
      encoder, whose unit is the sample.
    recipes: names in `config.recipe` that may be its recipe; the first existing one is
      used.
  """

  modality: str | None
  part: str | None = None
  recipes: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    """The name in files, in `config.recipe` and in the parameter tree."""
    if self.modality is None:
      return MULTIMODAL
    return self.modality if self.part is None else f'{self.modality}_{self.part}'

  @property
  def of_samples(self) -> bool:
    """Whether its unit is the sample, not a part of one."""
    return self.part is None


@dataclasses.dataclass(frozen=True)
class DecoderSize:
  """Hidden width and dropout of a stage's decoder; without a width, an output layer."""

  hidden: int | None
  dropout: float = 0.0


class Units(NamedTuple):
  """The units that a part of an encoder makes of a batch: segments, recordings.

  Attributes:
    vectors: one per unit.
    owner: batch row whose label and weight the unit has, int32.
    present: whether the unit exists.
  """

  vectors: Float[Array, 'u e']
  owner: Int[Array, ' u']
  present: Bool[Array, ' u']


class Modality(abc.ABC):
  """One modality of a model; hashable, because it is part of a module.

  Attributes:
    name: of the modality.
    config: sizes and options of its encoder.

  Class attributes:
    kind: of modality.
    gates: name of a gate -> the array whose shape it has (`medm2t_jax.models.gates`).
  """

  kind: ClassVar[str]
  gates: ClassVar[Mapping[str, str]]
  name: str
  config: Any

  @property
  @abc.abstractmethod
  def columns(self) -> ColumnKind:
    """The columns that the ensemble trunk reads."""

  @abc.abstractmethod
  def encoder(self, axis_name: str | None, dtype: DTypeLike) -> nn.Module:
    """Its encoder, called with (arrays, valid rows, train=, attend_over=): `Encoded`."""

  @abc.abstractmethod
  def decoder(self, part: str | None) -> DecoderSize:
    """The decoder sizes of its stages."""

  @property
  def parts(self) -> tuple[str, ...]:
    """Parts of the encoder that have their own stages, in training order."""
    return ()

  def family(self, part: str) -> str:
    """A name that parts with the same recipe share."""
    return part

  def units(
    self,
    encoder: Any,
    part: str,
    arrays: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
  ) -> Units:
    """The units of a part.

    Args:
      encoder: from `encoder`, bound.
      part: one of `parts`.
      arrays: of the batch, without the device axis.
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
    """
    raise ValueError(f'{self.name} has no part {part!r}')

  def present(self, arrays: Mapping[str, Any], rows: int) -> Bool[Array, ' b']:
    """Which rows of a batch have the modality; arrays without the device axis."""
    if 'owner' in arrays:
      return jnp.zeros(rows, bool).at[arrays['owner']].max(arrays['mask'])
    return jnp.any(arrays['mask'], axis=1)

  def masked(
    self, arrays: Mapping[str, Any], change: Callable[[Any], Any]
  ) -> dict[str, Any]:
    """The modality with changed masks, NumPy or JAX; values are unchanged.

    Args:
      arrays: with any leading axes.
      change: a mask -> another mask of the same shape.
    """
    return {**arrays, 'mask': change(arrays['mask'])}

  def without(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The modality with nothing observed, with any leading axes; only masks change."""
    return self.masked(arrays, lambda mask: mask & False)

  def hidden(self, arrays: Mapping[str, Any], kept: Bool[Array, ' b']) -> dict[str, Any]:
    """The modality with nothing observed in the rows that are not `kept`."""
    of_row = kept[arrays['owner']] if 'owner' in arrays else kept
    lead = lambda mask: of_row.reshape(-1, *(1,) * (mask.ndim - 1))
    return self.masked(arrays, lambda mask: mask & lead(mask))

  def stages(self, *, with_parts: bool) -> tuple[Stage, ...]:
    """Its stages in training order; its own stage is the last."""
    parts = []
    for part in self.parts if with_parts else ():
      name = Stage(self.name, part).name
      family = self.family(part)
      recipes = (name, f'{self.name}_{family}', f'{self.kind}_{family}')
      parts.append(Stage(self.name, part, tuple(dict.fromkeys(recipes))))
    own = Stage(self.name, None, tuple(dict.fromkeys((self.name, self.kind))))
    return (*parts, own)
