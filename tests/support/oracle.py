"""Comparison with an oracle in float32."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-5


def assert_close(ours, theirs) -> None:
  """Every element differs by at most 1e-5 of the largest one, or of 1."""
  theirs = np.asarray(theirs)
  scale = max(1.0, float(np.abs(theirs).max()))
  np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, atol=TOLERANCE)


def arrays(module) -> dict[str, np.ndarray]:
  """A torch module's parameters and buffers by their names."""
  return {name: tensor.numpy() for name, tensor in module.state_dict().items()}
