"""Explanations of single predictions and of the model as a whole: attributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from medm2t_jax.inference.attribution.integrated_gradients import Completeness
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.shown import Arrays, ItemAttribution


@dataclasses.dataclass(frozen=True)
class Attention:
  """Attention weights of one part of the model on the tokens of another.

  Attributes:
    of: the part with the tokens.
    by: the querying part.
    tokens: names of the tokens (t).
    weights: float (t), mean over the heads; they sum to 1 and are 0 for masked tokens.
  """

  of: str
  by: str
  tokens: Sequence[str]
  weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class ExplainedSample:
  """A test sample, its prediction, and the explanation.

  Attributes:
    hash: keyed hash of the sample.
    fold: that predicted it.
    verdict: 'right', 'wrong', 'close' or 'far off'.
    label: () or (l).
    prediction: probabilities (c), or a number ().
    explained: the output in words.
    completeness: of the attributions.
    arrays: modality -> arrays of docs/design.md, "The batch", without batch rows.
    attributions: modality -> attributions of the network, shaped like the arrays of that
      name; those of events are `token`.
    items: attributions of the whole model, by variable.
    attention: of Bi-Modal Attention.
    modalities: of the model that predicted it.
  """

  hash: str
  fold: int
  verdict: str
  label: np.ndarray
  prediction: np.ndarray
  explained: str
  completeness: Completeness
  arrays: Mapping[str, Arrays]
  attributions: Mapping[str, Arrays]
  items: Sequence[ItemAttribution]
  attention: Sequence[Attention]
  modalities: Sequence[Modality]


@dataclasses.dataclass(frozen=True)
class Explanation:
  """Explanations of a set of test samples.

  Attributes:
    patients: samples with a page each.
    explained: the output that `samples` are about, in words.
    samples: the variables of each sample.
    completeness: of each sample.
  """

  patients: Sequence[ExplainedSample] = ()
  explained: str = ''
  samples: Sequence[Sequence[ItemAttribution]] = ()
  completeness: Sequence[Completeness] = ()
