"""A bundle that the stages of a run start from (`config.start_from`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from medm2t_jax.runs.checkpoint import Lineage


@dataclasses.dataclass(frozen=True)
class Start:
  """One member of a trained model (`medm2t_jax.inference.trained_model`).

  Attributes:
    variables: of its multimodal stage: `params`, `batch_stats`, `fitted`.
    blend: baselines that predict with it, and weights
      (`medm2t_jax.inference.blend.restore`); None if the network predicts alone.
    lineage: the subjects that it has seen.
    key_fingerprint: of the key of the subject hashes in `lineage`.
  """

  variables: Mapping[str, Any]
  blend: Mapping[str, Any] | None
  lineage: Lineage
  key_fingerprint: str

  def parameters(self) -> dict[tuple[str, ...], np.ndarray]:
    """Path -> parameters and batch statistics."""
    flat: dict[tuple[str, ...], Any] = dict(
      traverse_util.flatten_dict(dict(self.variables))
    )
    return {path: value for path, value in flat.items() if path[0] != 'fitted'}

  def fitted(self, declared: Mapping[str, Any]) -> dict[str, Any]:
    """A collection `fitted` with everything that the model has replaced by the model's.

    Except for the prior (`offset`), because outcomes have other frequencies elsewhere.

    Args:
      declared: the collection of a stage, fitted on the run's own training subjects.
    """
    theirs = traverse_util.flatten_dict(dict(self.variables['fitted']))
    ours = traverse_util.flatten_dict(dict(declared))
    kept = {path for path in ours if path in theirs and path[-1] != 'offset'}
    return traverse_util.unflatten_dict(
      {path: theirs[path] if path in kept else value for path, value in ours.items()}
    )

  def part_weights(self, stage: str) -> np.ndarray | None:
    """Weights of the parts of a stage's prediction; None if the model has none."""
    return self.variables['fitted'].get(f'additions_{stage}', {}).get('part_weights')

  def lineage_of(self, own: Lineage, key_fingerprint: str) -> Lineage:
    """The lineage of a run that starts from here.

    Args:
      own: its lineage without this start.
      key_fingerprint: of the key of the subject hashes in `own`. If it is the model's,
        subjects can be compared, and those of the model count as seen.
    """
    theirs = {**self.lineage.to_json(), 'key_fingerprint': self.key_fingerprint}
    lineage = dataclasses.replace(own, started_from=theirs)
    same = key_fingerprint == self.key_fingerprint
    return lineage.joined(self.lineage) if same else lineage

  def seen_by(self, key_fingerprint: str) -> frozenset[str]:
    """Hashes, with a given key, of the subjects that it or its own start has seen."""
    return self.lineage.seen(self.key_fingerprint).get(key_fingerprint, frozenset())
