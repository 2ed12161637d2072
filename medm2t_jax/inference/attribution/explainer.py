"""Explains predictions of single rows by the whole trained model.

The whole model is the mean of the bundle's members, each of which is a network in its
blend. `whole_model` describes how these parts are explained together and what the
attributions sum to.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from medm2t_jax import targets
from medm2t_jax.inference.attribution.integrated_gradients import (
  LEVELS,
  Completeness,
  Doubling,
  level_of,
)
from medm2t_jax.inference.attribution.rows import (
  integrated_of,
  items_of,
  one_row,
  together,
  unpacked,
)
from medm2t_jax.inference.attribution.simple_models import Said, SimpleModels
from medm2t_jax.inference.attribution.whole_model import end_of, explain_step
from medm2t_jax.inference.program import program
from medm2t_jax.inference.trained_model import Batch, TrainedModel
from medm2t_jax.modalities.shown import Arrays, ItemAttribution
from medm2t_jax.models.medm2t import MedM2T


@dataclasses.dataclass(frozen=True)
class Explained:
  """One prediction and its attributions.

  The baseline of the networks is a sample that was observed equally often but has only
  unremarkable values; that of the simple models is their expectation over the training
  samples. So `attributions` describe the effect of values, and `columns` also the effect of
  whether a variable was recorded. An absent modality has no `attributions`.

  Attributes:
    explained: the output in words.
    arrays: modality -> arrays of docs/design.md, "The batch", of this row only: without the
      axis of batch rows, packed recordings padded to the largest number per row.
    attributions: modality -> attributions of the networks, shaped like the arrays of the
      gates with the same name (`medm2t_jax.models.gates`); those of events are `token`.
    columns: attributions of the simple models, by variable.
    items: attributions of the whole model by variable: sum of `attributions` and `columns`.
    completeness: of both together.
  """

  explained: str
  arrays: Mapping[str, Arrays]
  attributions: Mapping[str, Arrays]
  columns: Sequence[ItemAttribution]
  items: Sequence[ItemAttribution]
  completeness: Completeness

  @property
  def output(self) -> float:
    """Output of the model on the scale of the link (log odds, or the number)."""
    return self.completeness.output

  @property
  def baseline(self) -> float:
    """Output at the baselines of networks and simple models."""
    return self.completeness.baseline


class Explainer:
  """Explains predictions of one trained model on one device.

  Programs are compiled at the first call with each batch shape, and kept.
  """

  def __init__(self, model: TrainedModel):
    config = model.model_config
    self._modalities = config.modalities
    self._target = targets.of(model.schema.target)
    self._recordings = model.batching.max_recordings
    self._program = jax.jit(program(model))
    self._step = explain_step(MedM2T(config))
    self._simple = SimpleModels(config, [each.blend for each in model.members])
    self._members = self._simple.members([each.variables for each in model.members])

  def explain(self, batch: Batch, output: int | None = None) -> list[Explained]:
    """Explains the prediction of every valid row, in order.

    Rows and padding do not influence each other. Memory grows with the number of rows: with
    long recordings, pass few rows at a time.

    Args:
      batch: of docs/design.md, without a device axis, aligned to the model's variables.
      output: the label whose log odds, or the class whose log odds against the first class,
        are explained. None: the most probable label, or the most probable class other than
        the first, of every row. A number has one output.

    Raises:
      ValueError: the target has no such output, or it is the first class.
    """
    batch = self._read(batch)
    valid = [int(row) for row in np.flatnonzero(batch['row'] >= 0)]
    favourites = self._favourites(batch, valid, output)
    chosen = np.tile(self._target.explained(None), (len(batch['row']), 1))
    for row, favourite in zip(valid, favourites, strict=True):
      chosen[row] = self._target.explained(favourite)
    said = self._simple.said(batch, valid)
    scores = said.scores(len(chosen))
    found = [Doubling() for _ in valid]
    for level in range(LEVELS + 1):
      step = functools.partial(self._step, self._members, batch, scores, chosen)
      integrated = level_of(step, level)
      for place, row in enumerate(valid):
        if not found[place].over:
          own = integrated_of(integrated, batch, row, self._recordings)
          its_scores = jax.tree.map(lambda x, row=row: x[row], scores)
          found[place].add(level, own, end_of(own.slopes, its_scores))
      if all(each.over for each in found):
        break
    return [
      self._explained(
        one_row(batch, row, self._recordings), favourite, each, said.of(place)
      )
      for place, (row, favourite, each) in enumerate(
        zip(valid, favourites, found, strict=True)
      )
    ]

  def without(self, batch: Batch) -> dict[str, np.ndarray]:
    """Predictions with each modality masked as if it were absent.

    Args:
      batch: as in `explain`.

    Returns:
      Modality -> predictions of the batch's rows, probabilities (b c) or numbers (b).
    """
    batch = self._read(batch)
    return {
      each.name: np.asarray(
        self._program({**batch, each.name: each.without(batch[each.name])})
      )
      for each in self._modalities
    }

  def _read(self, batch: Batch) -> dict[str, Any]:
    """The part of a batch on which a prediction depends."""
    names = [each.name for each in self._modalities]
    return {'row': batch['row'], **{name: dict(batch[name]) for name in names}}

  def _favourites(
    self, batch: Batch, valid: Sequence[int], output: int | None
  ) -> list[int | None]:
    """The output to explain for each valid row."""
    kind = self._target
    if output is not None:
      known = kind.target.outputs if kind.link != 'identity' else 1
      if not int(kind.link == 'softmax') <= output < known:
        raise ValueError(
          f'output {output} cannot be explained: give one of the {known} outputs; not 0 '
          'for classes, which are explained against the first'
        )
      return [output] * len(valid)
    predictions = np.asarray(self._program(batch))
    return [kind.favourite(predictions[row]) for row in valid]

  def _explained(
    self, single: Batch, favourite: int | None, found: Doubling, said: Said
  ) -> Explained:
    """The explanation of one row."""
    arrays, attributions = unpacked(single, found.slopes.gates)
    items = items_of(self._modalities, arrays, attributions)
    of_columns = self._simple.items(said, found.slopes, items)
    return Explained(
      explained=self._target.explained_output(favourite),
      arrays=arrays,
      attributions=attributions,
      columns=of_columns,
      items=together(items, of_columns),
      completeness=found.completeness,
    )
