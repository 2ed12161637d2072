"""The history of a stage on disk: metrics.jsonl always, TensorBoard events on request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from data_pipeline.format.atomic import write_text
from data_pipeline.format.schema import DataError


def require_tensorboard() -> None:
  """Raises DataError if TensorBoard is not installed."""
  if util.find_spec('tensorboard') is None:
    raise DataError(
      'config.training.tensorboard=True needs the package tensorboard: '
      "pip install -c constraints.txt -e '.[tensorboard]', or leave it False "
      '(metrics.jsonl is always written)'
    )


class MetricWriter:
  """Writes the records of a stage's epochs to its folder."""

  def __init__(self, directory: Path, *, tensorboard: bool):
    """Opens the stage's directory; `tensorboard` also writes event files."""
    self._directory = directory
    directory.mkdir(parents=True, exist_ok=True)
    self._events = None
    if tensorboard:
      import tensorflow as tf

      self._events = tf.summary.create_file_writer(str(directory))

  def write(self, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes the history up to the epoch that has just ended.

    Args:
      history: one record per epoch. `metrics.jsonl` is rewritten with all of them, so that
        a repeated epoch never appears twice. Numbers of the last record become TensorBoard
        scalars at step `epoch`.
    """
    lines = ''.join(json.dumps(record) + '\n' for record in history)
    write_text(self._directory / 'metrics.jsonl', lines)
    if self._events is not None:
      import tensorflow as tf

      record = history[-1]
      with self._events.as_default(step=record['epoch']):
        for name, value in record.items():
          if name != 'epoch':
            tf.summary.scalar(name, value)
      self._events.flush()
