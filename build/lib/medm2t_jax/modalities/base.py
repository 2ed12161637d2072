"""What a model and all that reads it need of a kind of modality.

One class a kind, of which an instance is one modality of a model: with its variables and
the sizes of its encoder. The format side is in `data_pipeline.format.modalities`; what
`MedM2T` itself is handed is in `medm2t_jax.models.modality`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np

from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.modalities import base as format_base
from medm2t_jax.modalities import draws
from medm2t_jax.modalities.ablation import Ablation
from medm2t_jax.modalities.shown import ColumnVariable, ItemAttribution, Looks, Shown
from medm2t_jax.modalities.windows import Windows, token_names
from medm2t_jax.models import modality as models
from medm2t_jax.models.options import ModelOptions

S = TypeVar('S')

Arrays = Mapping[str, Any]
Fitted = dict[str, np.ndarray]


class Observations(NamedTuple):
  """Observations of a batch's samples, those of a sample in the order of their times.

  Attributes:
    sample: row of the batch, int64 (o).
    item: index into the modality's items, int64 (o).
    value: float64 (o); of a category, its index among the item's categories.
    time: hours, at most 0; of a grid cell its middle, float64 (o).
  """

  sample: np.ndarray
  item: np.ndarray
  value: np.ndarray
  time: np.ndarray


@dataclasses.dataclass(frozen=True)
class Setting:
  """What the sizes of an encoder follow from.

  Attributes:
    options: `config.model`.
    task: whose sizes of the paper they are: 'cvd', 'mortality' or 'los'.
    observation_hours: of the data set; None: the whole history.
  """

  options: ModelOptions
  task: str
  observation_hours: float | None

  def pick(self, paper: Mapping[str, S], small: S) -> S:
    """The sizes of this task and size."""
    return paper[self.task] if self.options.size == 'paper' else small

  @property
  def attend_over(self) -> Any:
    """Without Bi-Modal Attention nobody reads tokens."""
    options = self.options
    return 'summary' if options.fusion == 'none' else options.attend_over


@dataclasses.dataclass(frozen=True)
class Damage:
  """A damage that one kind of modality alone can have.

  Attributes:
    name: of its curve.
    title: in words.
    axis: what a level counts; curves with the same axis share a picture.
    levels: from mild to severe.
    change: (arrays, index rows (d b), level, seed) -> the damaged arrays, all with a
      leading device axis; None where the raw files are damaged.
    raw: kind of `data_pipeline.ecg.rereading.Damage`, '' where the batch is damaged.
  """

  name: str
  title: str
  axis: str
  levels: tuple[float, ...]
  change: Callable[[Arrays, np.ndarray, float, int], Arrays] | None = None
  raw: str = ''


@dataclasses.dataclass(frozen=True)
class Modality(models.Modality):
  """One modality of a model.

  Attributes:
    name: of the modality.
    spec: its variables, of the data set.
    config: sizes and options of its encoder.
    windows: of time; None where it has none.

  Class attributes:
    of: the kind of modality on the format side.
    windowed: whether baselines over time read its observations, and not its columns.
    thinned_by_damage: whether entries can be removed at random.
    published: options of `config.model` that the paper has.
    fuses: whether its encoder has Bi-Modal Attention of its own.
    in_windows: whether its encoder reads time in windows.
    described: what a data set without any modality of this kind lacks.
  """

  name: str
  spec: Any
  config: Any
  windows: Windows | None = None

  of: ClassVar[type[format_kinds.Modality]]
  windowed: ClassVar[bool] = False
  thinned_by_damage: ClassVar[bool] = False
  published: ClassVar[Mapping[str, Any]] = {}
  fuses: ClassVar[bool] = False
  in_windows: ClassVar[bool] = False
  described: ClassVar[str]

  @classmethod
  @abc.abstractmethod
  def make(cls, name: str, spec: Any, setting: Setting) -> Self:
    """The modality with the sizes of a setting.

    Raises:
      DataError: an option that does not suit it.
    """

  @abc.abstractmethod
  def column_names(self) -> list[str]:
    """Names of `columns`, after the modality's: 'itemid/statistic' and the like."""

  def column_variables(self) -> list[ColumnVariable]:
    """The variable that each of `columns` tells of; if nobody says: all of the modality."""
    return [ColumnVariable(self.name, self.name) for _ in self.column_names()]

  @abc.abstractmethod
  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    """The fitted variables of the encoder.

    Args:
      seen: the valid rows (of 'fixed' arrays) or entries of all training samples.
    """

  @abc.abstractmethod
  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    """The variables that a sample has.

    Args:
      arrays: of the sample, without batch rows.
      attributions: name of a gate -> attributions of the shape of its array.
    """

  def shown(self, arrays: Arrays, attributions: Arrays) -> Shown:
    """What a sample's page shows of it; arguments as of `attributed`."""
    del arrays, attributions
    return Shown()

  def tokens(self, fitted: Mapping[str, Any]) -> Sequence[str]:
    """Names of the encoder's tokens, given its fitted variables."""
    return token_names(fitted) if self.windows else ('all of it',)

  def looks(
    self,
    path: tuple[str, ...],
    weights: np.ndarray,
    fitted: Mapping[str, Any],
    arrays: Arrays,
  ) -> Looks | None:
    """Sown attention weights inside the encoder, of a sample; None where there are none.

    Args:
      path: of the weights inside the encoder.
      weights: (target, querying part, u, heads, 1, tokens), u what the parts are of.
      fitted: variables of the encoder.
      arrays: of the sample.
    """
    del path, weights, fitted, arrays

  def observations(self, arrays: Arrays) -> tuple[Observations, Observations | None]:
    """Numbers and categories one by one, where the kind is `windowed`.

    Args:
      arrays: without the device axis.
    """
    raise NotImplementedError

  def known_since(self, arrays: Arrays, hours: float) -> Arrays:
    """Only what lies in the last `hours` (device axis first)."""
    if self.spec.time is None:
      return arrays
    return format_base.kept(arrays, arrays[self.spec.time] >= np.float32(-hours))

  def earlier(self, arrays: Arrays, hours: float) -> Arrays:
    """Everything happened `hours` earlier than it did (device axis first)."""
    if self.spec.time is None:
      return arrays
    moved = arrays[self.spec.time] - np.float32(hours)
    time = np.where(arrays['mask'], moved, np.float32(0))
    return {**arrays, self.spec.time: time}

  def thinned(self, arrays: Arrays, rows: np.ndarray, share: float, seed: int) -> Arrays:
    """A share of the entries removed; a higher one removes the same and more."""
    shape = arrays['mask'].shape[2:]
    drawn = draws.uniform(rows, seed, f'thin {self.name}', shape)
    return format_base.kept(arrays, drawn >= share)

  def lost(self, arrays: Arrays, keep: np.ndarray) -> Arrays:
    """The modality as if it had never been recorded in the rows that are not kept (d b)."""
    if self.spec.layout == 'packed':
      return format_base.kept(arrays, np.take_along_axis(keep, arrays['owner'], axis=1))
    if self.spec.layout == 'padded':
      return format_base.kept(arrays, keep.reshape(*keep.shape, 1))
    result = {}
    for key, array in arrays.items():
      wide = keep.reshape(*keep.shape, *(1,) * (array.ndim - 2))
      padding = array.dtype.type(self.spec.arrays[key].padding)
      result[key] = np.where(wide, array, padding)
    return result

  def damages(self) -> Sequence[Damage]:
    """Those that this kind alone can have."""
    return ()

  @classmethod
  def ablations(cls, options: ModelOptions) -> Sequence[Ablation]:
    """Of the options of `config.model` that are for this kind."""
    del options
    return ()

  @property
  def timed(self) -> bool:
    """Whether its entries have times, that can be wrong or too long ago."""
    return self.spec.time is not None

  def definition(self, part: str | None) -> dict[str, Any]:
    """All of the modality that the training of a stage is a function of."""
    del part
    return {'config': dataclasses.asdict(self.config), 'windows': self.windows}

  def mean_columns(self) -> dict[str, str]:
    """Column whose mean tells of drift -> code of its variable."""
    numbers = (item.itemid for item in self.spec.variables if not item.categories)
    named = {f'{code}/mean': code for code in numbers}
    return {name: named[name] for name in self.column_names() if name in named}
