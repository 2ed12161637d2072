"""Fits statistics of values and columns on training samples."""

from __future__ import annotations

import numpy as np

from medm2t_jax.models.trunk import chunks

# If fewer training samples lack a column, its presence has no information.
FLAGGED_MISSING = 0.02


def piecewise_linear(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
  """Quantile thermometer: how far each value has filled each piece, (n, pieces).

  Args:
    values: (n,).
    knots: ascending, (pieces + 1,). A piece of width 0 stays 0.
  """
  width = np.diff(knots)
  filled = (values[:, None] - knots[:-1]) / np.where(width > 0, width, 1.0)
  return np.where(width > 0, np.clip(filled, 0.0, 1.0), 0.0)


def fit_columns(table: np.ndarray) -> dict[str, np.ndarray]:
  """The statistics of each column that `medm2t_jax.models.trunk.chunks` needs.

  Args:
    table: of training samples (samples, n), NaN where unknown.

  Returns:
    `column_knots` (n, 9), `column_mean` (n, 8), `column_center`, `column_scale` and
    `column_flagged` (n,); all 0 for a column without any value.
  """
  count, places = table.shape[1], np.linspace(0, 100, chunks.PIECES + 1)
  knots, mean = np.zeros((count, len(places))), np.zeros((count, chunks.PIECES))
  center, scale = np.zeros(count), np.zeros(count)
  flagged = np.zeros(count, bool)
  for column in range(count):
    values = table[~np.isnan(table[:, column]), column].astype(np.float64)
    if len(values):
      # Rounded first: the model compares float32 values with float32 knots.
      knots[column] = np.percentile(values, places).astype(np.float32)
      mean[column] = piecewise_linear(values, knots[column]).mean(axis=0)
      center[column], scale[column] = values.mean(), values.std()
      flagged[column] = len(values) < (1 - FLAGGED_MISSING) * len(table)
  return {
    'column_knots': knots,
    'column_mean': mean,
    'column_center': center,
    'column_scale': scale,
    'column_flagged': flagged,
  }


def center_and_scale(
  values: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Median and interquartile range of each column's valid values; 0 and 1 without any.

  Args:
    values: (n, columns).
    valid: (n, columns) bool.
  """
  center = np.zeros(values.shape[1])
  scale = np.ones(values.shape[1])
  for column in range(values.shape[1]):
    known = values[valid[:, column], column]
    if len(known):
      low, center[column], high = np.percentile(known, (25, 50, 75))
      scale[column] = high - low if high > low else 1.0
  return center, scale
