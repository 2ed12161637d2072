"""Attention weights of Bi-Modal Attention by modality pair, with names for tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from medm2t_jax.evaluation.explain.explanation import Attention
from medm2t_jax.inference.attribution.whole_model import STAGE, in_float32
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.shown import Arrays
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.medm2t import MedM2T

_SUMMARY = ('all of it',)


def attention_step(
  model: MedM2T,
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
  """Returns the compiled `(variables, batch) -> intermediates` with attention weights.

  Args:
    model: whose parameters are passed to the step; it runs in float32.
  """
  model = in_float32(model)

  @jax.jit
  def step(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
    updates: Any
    _, updates = model.apply(
      variables, batch, stage=STAGE, train=False, mutable=['intermediates']
    )
    return dict(updates.get('intermediates', {}))

  return step


def attention_of(
  intermediates: Mapping[str, Any],
  config: ModelConfig[Modality],
  fitted: Mapping[str, Any],
  arrays: Mapping[str, Arrays],
) -> list[Attention]:
  """Attention weights of a sample between every two modalities, and inside some.

  Pairs with an absent modality are masked in the model and left out here.

  Args:
    intermediates: Flax's collection of one sample.
    config: of the model.
    fitted: fitted collection, with the window limits.
    arrays: the sample, as in `ExplainedSample`.
  """
  found = traverse_util.flatten_dict(dict(intermediates))
  result = []
  for path, (weights,) in sorted(found.items()):
    if path[:2] == ('fusion', 'bimodal'):
      tokens = _modality_tokens(config, fitted)
      present = {name: _present(config, name, arrays[name]) for name in config.names}
      result += _pairs(np.asarray(weights)[:, :, 0], tokens, present)
    for each in config.modalities:
      home = f'encoders_{each.name}'
      if path[0] == home:
        looks = each.looks(
          path[1:], np.asarray(weights), fitted.get(home, {}), arrays[each.name]
        )
        if looks is not None:
          result += _pairs(looks.weights, looks.tokens, looks.present)
  return result


def _pairs(
  weights: np.ndarray,
  tokens: Mapping[str, Sequence[str]],
  present: Mapping[str, bool],
) -> list[Attention]:
  """Attention from weights (target, querying part, heads, 1, t).

  The second axis skips the target.
  """
  result = []
  names = list(tokens)
  for j, of in enumerate(names):
    others = [name for name in names if name != of]
    for r, by in enumerate(others):
      if present[of] and present[by]:
        mean = weights[j, r, :, 0, : len(tokens[of])].mean(axis=0, dtype=np.float64)
        result.append(Attention(of, by, tokens[of], mean))
  return result


def _present(config: ModelConfig[Modality], name: str, arrays: Arrays) -> bool:
  """Whether a sample has a modality: its arrays have no axis of rows, unless packed."""
  packed = 'owner' in arrays
  rows = arrays if packed else {key: array[np.newaxis] for key, array in arrays.items()}
  return bool(np.asarray(config.modality(name).present(rows, 1))[0])


def _modality_tokens(
  config: ModelConfig[Modality], fitted: Mapping[str, Any]
) -> dict[str, Sequence[str]]:
  """Names of the tokens of every modality: times relative to the prediction."""
  if config.attend_over == 'summary':
    return dict.fromkeys(config.names, _SUMMARY)
  return {
    each.name: each.tokens(fitted.get(f'encoders_{each.name}', {}))
    for each in config.modalities
  }
