"""Sown weights of Bi-Modal Attention, by what looked at what, with names for tokens."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from data_pipeline.format.schema import ECG_SAMPLES, ECG_SAMPLING_RATE, Schema
from medm2t_jax.evaluation.explain.explanation import Arrays, Attention, most_recent
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.ecg import VIEWS

_SUMMARY = ('all of it',)
# How the views of a recording are called beside the modalities.
_VIEW_NAMES = dict(zip(VIEWS, ('ECG signal', 'ECG measurements', 'ECG terms'), strict=True))


def attention_of(
  sown: Mapping[str, Any],
  config: ModelConfig,
  schema: Schema,
  fitted: Mapping[str, Any],
  arrays: Mapping[str, Arrays],
) -> list[Attention]:
  """What every modality of a sample looked at in every other one.

  And, for the most recent recording, what the views of the ECG looked at in each other.
  Pairs of which one is absent are masked in the model and left out here.

  Args:
    sown: collection 'intermediates' of one sample.
    config: of the model.
    schema: of the data set.
    fitted: fitted collection, with the windows' cuts.
    arrays: the sample, as in `ExplainedSample`.
  """
  found = traverse_util.flatten_dict(dict(sown))
  result = []
  for path, (weights,) in sorted(found.items()):
    if path[:2] == ('fusion', 'bimodal'):
      block = _block(path[2], config.fusion.blocks)
      tokens = _modality_tokens(config, schema, fitted)
      present = {name: _present(arrays[name]) for name in config.modalities}
      result += _pairs(np.asarray(weights)[:, :, 0], tokens, present, block)
    if path[:3] == ('encoders_ecg', 'fusion', 'bimodal'):
      assert config.ecg is not None
      ecg = arrays['ecg']
      if ecg['mask'].any():
        latest = most_recent(ecg)
        block = _block(path[3], config.ecg.fusion.blocks)
        tokens, present = _view_tokens(config), _views_present(ecg, fitted, latest)
        result += _pairs(np.asarray(weights)[:, :, latest], tokens, present, block)
  return result


def _block(name: str, blocks: int) -> str:
  return f', block {int(name.removeprefix("block_")) + 1}' if blocks > 1 else ''


def _pairs(
  weights: np.ndarray,
  tokens: Mapping[str, Sequence[str]],
  present: Mapping[str, bool],
  block: str,
) -> list[Attention]:
  """From weights (target, querying part, heads, 1, t); the latter skips the target."""
  result = []
  names = list(tokens)
  for j, of in enumerate(names):
    others = [name for name in names if name != of]
    for r, by in enumerate(others):
      if present[of] and present[by]:
        mean = weights[j, r, :, 0, : len(tokens[of])].mean(axis=0, dtype=np.float64)
        result.append(Attention(of, by + block, tokens[of], mean))
  return result


def _present(arrays: Arrays) -> bool:
  if 'numeric' in arrays:
    return bool(arrays['numeric_mask'].any() or (arrays['categorical'] >= 0).any())
  return bool(arrays['observed' if 'observed' in arrays else 'mask'].any())


def _modality_tokens(
  config: ModelConfig, schema: Schema, fitted: Mapping[str, Any]
) -> dict[str, Sequence[str]]:
  """Names of the tokens of every modality: times relative to the prediction."""
  tokens: dict[str, Sequence[str]] = {name: _SUMMARY for name in config.modalities}
  if config.attend_over == 'summary':
    return tokens
  for name, _ in config.events:
    tokens[name] = _windows(fitted[f'encoders_{name}'])
  if config.ecg is not None:
    tokens['ecg'] = _windows(fitted['encoders_ecg'].get('time', {}))
  for name, grid in config.grids:
    hours = schema.grids[name].step_hours
    order = np.arange(grid.segments)
    longest = max(micro.length for micro in grid.micro)
    # As `HierarchicalTimeAwareFusion` lays them; shorter scales lie inside.
    starts = order * (grid.steps - longest) // max(grid.segments - 1, 1) - grid.steps
    tokens[name] = [
      f'{_hour(start * hours)} to {_hour((start + longest) * hours)} h' for start in starts
    ]
  return tokens


def _windows(fitted: Mapping[str, Any]) -> list[str]:
  """With one window there are no cuts."""
  ends = [_hour(float(cut)) for cut in np.asarray(fitted.get('time_cuts', ()))]
  if not ends:
    return ['all times']
  between = [f'{a} to {b} h' for a, b in itertools.pairwise(ends)]
  return [f'up to {ends[0]} h', *between, f'after {ends[-1]} h']


def _hour(value: float) -> str:
  digits = '.0f' if abs(value) >= 1000 else '.4g'
  return f'{value:{digits}}'.replace('-', '\N{MINUS SIGN}')


def _view_tokens(config: ModelConfig) -> dict[str, Sequence[str]]:
  assert config.ecg is not None
  tokens: dict[str, Sequence[str]] = {name: _SUMMARY for name in _VIEW_NAMES.values()}
  if config.ecg.attend_over == 'tokens':
    parts = config.ecg.signal_plan[-1][1]
    start = (ECG_SAMPLES - config.ecg.samples) // 2 / ECG_SAMPLING_RATE
    edges = start + np.linspace(0, config.ecg.samples / ECG_SAMPLING_RATE, parts + 1)
    tokens[_VIEW_NAMES['signal']] = [
      f'{a:.2f} to {b:.2f} s' for a, b in itertools.pairwise(edges)
    ]
  return tokens


def _views_present(ecg: Arrays, fitted: Mapping[str, Any], slot: int) -> dict[str, bool]:
  seen = np.asarray(fitted['encoders_ecg']['text_view']['term_seen'])
  found = (
    True,
    ecg['measurements_mask'][slot].any(),
    ((ecg['terms'][slot] > 0) & seen).any(),
  )
  return {name: bool(each) for name, each in zip(_VIEW_NAMES.values(), found, strict=True)}
