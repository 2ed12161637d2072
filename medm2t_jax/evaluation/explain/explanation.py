"""What single predictions and the model as a whole depend on: attributions as figures."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from medm2t_jax.inference.attribution.integrated_gradients import Completeness
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.shown import Arrays, ItemAttribution

_LEAST_SAMPLES = 5  # for a correlation


@dataclasses.dataclass(frozen=True)
class Attention:
  """What one part of the model looked at in another.

  Attributes:
    of: what was looked at.
    by: what looked.
    tokens: names of what there was to look at (t).
    weights: float (t), mean over the heads; they sum to 1, and are 0 where a token was
      masked.
  """

  of: str
  by: str
  tokens: Sequence[str]
  weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class ExplainedSample:
  """A test sample, its prediction, and what this looked at.

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
    items: attributions of all that predicts, by variable.
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
  """What is explained of a set of test samples.

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


def explanation(found: Explanation | None) -> dict[str, Any] | None:
  """The figures of an explanation: importance of every variable, pages, residuals."""
  if found is None:
    return None
  return {
    'explained': found.explained,
    'samples': len(found.samples),
    'incomplete': sum(not each.holds for each in found.completeness),
    'largest_residual': max(
      (abs(each.residual) for each in found.completeness), default=None
    ),
    'items': _importance(found.samples),
    'patients': [
      {
        'page': f'patients/{number}.html',
        'sample': each.hash,
        'fold': each.fold,
        'verdict': each.verdict,
        'label': each.label,
        'prediction': each.prediction,
        'explained': each.explained,
        'output': each.completeness.output,
        'baseline': each.completeness.baseline,
        'residual': each.completeness.residual,
        'complete': each.completeness.holds,
      }
      for number, each in enumerate(found.patients, start=1)
    ],
  }


def _importance(samples: Sequence[Sequence[ItemAttribution]]) -> list[dict[str, Any]]:
  """One entry a variable, the most important first; means are over all samples."""
  found: dict[tuple[str, str, str], list[ItemAttribution]] = defaultdict(list)
  for items in samples:
    for each in items:
      found[each.modality, each.name, each.unit].append(each)
  entries = []
  for (modality, name, unit), group in found.items():
    attributions = np.array([each.attribution for each in group])
    entries.append(
      {
        'modality': modality,
        'name': name,
        'unit': unit,
        'samples': len(group),
        'mean_absolute': float(np.abs(attributions).sum() / len(samples)),
        'mean': float(attributions.sum() / len(samples)),
        'correlation': _correlation(group),
      }
    )
  return sorted(entries, key=lambda each: (-each['mean_absolute'], each['name']))


def _correlation(group: Sequence[ItemAttribution]) -> float | None:
  """Rank correlation of value and attribution over the samples."""
  pairs = [(each.value, each.attribution) for each in group if each.value is not None]
  values, attributions = np.array(pairs, np.float64).reshape(-1, 2).T
  if len(pairs) < _LEAST_SAMPLES or np.ptp(values) == 0 or np.ptp(attributions) == 0:
    return None
  ranks = [stats.rankdata(each) for each in (values, attributions)]
  return float(np.corrcoef(*ranks)[0, 1])
