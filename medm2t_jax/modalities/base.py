"""Interface of a kind of modality on the side of models.

Each kind is a class; an instance is one modality of a model, with its variables and the
sizes of its encoder. The data side is in `data_pipeline.format.modalities`; the part that
`MedM2T` itself needs is in `medm2t_jax.models.modality`.
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

# One level of damage for all samples, or one for each of them: (d b). 0 is no damage.
Level = float | np.ndarray
Arrays = Mapping[str, Any]
Fitted = dict[str, np.ndarray]


class Observations(NamedTuple):
  """Observations of a batch's samples; those of a sample are in order of time.

  Attributes:
    sample: row of the batch, int64 (o).
    item: index into the modality's items, int64 (o).
    value: float64 (o); for a category, its index among the item's categories.
    time: hours, at most 0; for a grid cell its middle, float64 (o).
  """

  sample: np.ndarray
  item: np.ndarray
  value: np.ndarray
  time: np.ndarray


@dataclasses.dataclass(frozen=True)
class Setting:
  """The inputs that determine the sizes of an encoder.

  Attributes:
    options: `config.model`.
    task: task of the paper whose sizes are used: 'cvd', 'mortality' or 'los'.
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
    """What Bi-Modal Attention attends to; without it, encoders need no tokens."""
    options = self.options
    return 'summary' if options.fusion == 'none' else options.attend_over


@dataclasses.dataclass(frozen=True)
class Damage:
  """A damage that only one kind of modality can have.

  Attributes:
    name: of its curve.
    title: in words.
    axis: what a level measures; curves with the same axis share a picture.
    levels: from mild to severe.
    change: (arrays, index rows (d b), level, seed) -> the damaged arrays, all with a
      leading device axis; None if the raw files are damaged.
    in_training: whether `config.augmentation` does it to training samples; `change` then
      takes a level for each of them.
    raw: kind of `data_pipeline.ecg.rereading.Damage`, '' if the batch is damaged.
  """

  name: str
  title: str
  axis: str
  levels: tuple[float, ...]
  change: Callable[[Arrays, np.ndarray, Any, int], Arrays] | None = None
  raw: str = ''
  in_training: bool = False


@dataclasses.dataclass(frozen=True)
class Modality(models.Modality):
  """One modality of a model.

  Attributes:
    name: of the modality.
    spec: the modality of the data set, with its variables.
    config: sizes and options of its encoder.
    windows: time windows; None if it has none.

  Class attributes:
    of: the kind of modality of data sets.
    windowed: whether time-series baselines read its observations instead of its columns.
    thinned_by_damage: whether entries can be removed at random.
    published: options of `config.model` in the paper.
    fuses: whether its encoder has its own Bi-Modal Attention.
    in_windows: whether its encoder divides time into windows.
    described: name of the kind in the message that a data set lacks it.
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
      DataError: an option does not fit it.
    """

  @abc.abstractmethod
  def column_names(self) -> list[str]:
    """Names of `columns`, without the modality's: 'itemid/statistic' or similar."""

  def column_variables(self) -> list[ColumnVariable]:
    """The variable that each of `columns` describes; by default the modality as a whole."""
    return [ColumnVariable(self.name, self.name) for _ in self.column_names()]

  @abc.abstractmethod
  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    """The fitted variables of the encoder.

    Args:
      seen: the valid rows (of 'fixed' arrays) or entries of all training samples.
    """

  @abc.abstractmethod
  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    """The variables of a sample with their attributions.

    Args:
      arrays: of the sample, without batch rows.
      attributions: name of a gate -> attributions, shaped like its array.
    """

  def shown(self, arrays: Arrays, attributions: Arrays) -> Shown:
    """The content for a sample's page; arguments as in `attributed`."""
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
    """Attention weights inside the encoder for a sample; None if there are none.

    Args:
      path: of the weights inside the encoder.
      weights: (target, querying part, u, heads, 1, tokens), u units.
      fitted: variables of the encoder.
      arrays: of the sample.
    """
    del path, weights, fitted, arrays

  def observations(self, arrays: Arrays) -> tuple[Observations, Observations | None]:
    """Single numbers and categories, for kinds that are `windowed`.

    Args:
      arrays: without the device axis.
    """
    raise NotImplementedError

  def known_since(self, arrays: Arrays, hours: float) -> Arrays:
    """Removes everything from before the last `hours` (device axis first)."""
    if self.spec.time is None:
      return arrays
    return format_base.kept(arrays, arrays[self.spec.time] >= np.float32(-hours))

  def earlier(self, arrays: Arrays, hours: float) -> Arrays:
    """Moves all times back by `hours` (device axis first)."""
    if self.spec.time is None:
      return arrays
    moved = arrays[self.spec.time] - np.float32(hours)
    time = np.where(arrays['mask'], moved, np.float32(0))
    return {**arrays, self.spec.time: time}

  def thinned(self, arrays: Arrays, rows: np.ndarray, share: float, seed: int) -> Arrays:
    """Removes a share of the entries; a larger share removes the same entries and more."""
    shape = arrays['mask'].shape[2:]
    drawn = draws.uniform(rows, seed, f'thin {self.name}', shape)
    return format_base.kept(arrays, drawn >= share)

  def charted_every(self, arrays: Arrays, minutes: Level) -> Arrays:
    """Keeps the last entry of each variable in every so many minutes.

    Kinds whose entries are of no single variable stay as they are.
    """
    del minutes
    return arrays

  def charted_late(self, arrays: Arrays, hours: Level) -> Arrays:
    """Removes what the last `hours` before the prediction time brought."""
    if self.spec.time is None:
      return arrays
    late = np.asarray(self.of_entries(hours, arrays), np.float32)
    return format_base.kept(arrays, arrays[self.spec.time] <= -late)

  def relabelled(self, arrays: Arrays, order: np.ndarray) -> Arrays:
    """Gives the numbers of a variable to another: `order` (d b v) has the new index."""
    del order
    return arrays

  def with_numbers(
    self, arrays: Arrays, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
  ) -> Arrays:
    """Changes the numbers of variables, and removes those beyond a variable's limits.

    Args:
      arrays: device axis first.
      change: (values, their variables' indices) -> values; axes begin with d b.
    """
    del change
    return arrays

  def spread(self, fitted: Mapping[str, Any]) -> np.ndarray:
    """Standard deviation (v) of each variable among training samples, by `fitted`."""
    del fitted
    return np.zeros(len(self.spec.variables))

  def of_entries(self, level: Level, arrays: Arrays) -> np.ndarray:
    """A level for each entry of `mask`, from one for all or for each sample (d b)."""
    level = np.asarray(level)
    if not level.ndim:
      return level
    if self.spec.layout == 'packed':
      return np.take_along_axis(level, arrays['owner'], axis=1)
    return level.reshape(*level.shape, *(1,) * (arrays['mask'].ndim - level.ndim))

  def within_limits(self, value: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Whether values are within the limits of their variables, and so would be prepared."""
    items = self.spec.variables
    low = np.array([-np.inf if each.low is None else each.low for each in items])
    high = np.array([np.inf if each.high is None else each.high for each in items])
    return (value >= low[item]) & (value <= high[item])

  def lost(self, arrays: Arrays, keep: np.ndarray) -> Arrays:
    """Removes the modality from all rows not in `keep` (d b), as if never recorded."""
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
    """The damages that only this kind can have."""
    return ()

  @classmethod
  def ablations(cls, options: ModelOptions, specs: Mapping[str, Any]) -> Sequence[Ablation]:
    """Ablations of the options of `config.model` for this kind.

    Args:
      options: of the full model.
      specs: the modalities of this kind that the data set has, by name.
    """
    del options, specs
    return ()

  @property
  def timed(self) -> bool:
    """Whether its entries have times."""
    return self.spec.time is not None

  def definition(self, part: str | None) -> dict[str, Any]:
    """Everything about the modality that the training of a stage depends on."""
    del part
    return {'config': dataclasses.asdict(self.config), 'windows': self.windows}

  def mean_columns(self) -> dict[str, str]:
    """Column whose mean shows drift -> code of its variable."""
    numbers = (item.itemid for item in self.spec.variables if not item.categories)
    named = {f'{code}/mean': code for code in numbers}
    return {name: named[name] for name in self.column_names() if name in named}
