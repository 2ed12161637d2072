"""Chooses the test samples that get a page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from medm2t_jax.targets.kind import TargetKind

Verdict = Literal['right', 'wrong', 'close', 'far off']


def choose_samples(
  prediction: np.ndarray, label: np.ndarray, count: int, kind: TargetKind
) -> list[tuple[int, Verdict]]:
  """The most confident correct predictions, and as many of the most confident wrong ones.

  For classes, the most confident sample of each predicted class comes first, then the
  second of each, so that a frequent class does not take all places. Numbers and sets of
  labels have no confidence: the smallest and the largest errors are taken, for labels by
  mean log loss. If one half lacks samples, the other fills up.

  Args:
    prediction: probabilities (n c), or numbers (n).
    label: of the samples, (n) or (n l).
    count: total number of samples; if odd, one more is correct.
    kind: of the target.

  Returns:
    (sample, verdict), correct ones first.
  """
  if kind.link != 'softmax':
    numeric = kind.link == 'identity'
    error = np.abs(prediction - label) if numeric else kind.log_losses(prediction, label)
    order = np.argsort(error, kind='stable')
    count = min(count, len(order))
    far = order[len(order) - count // 2 :][::-1]
    close = order[: count - len(far)]
    return [*_all(close, 'close'), *_all(far, 'far off')]
  predicted = np.argmax(prediction, axis=1)
  confidence = prediction[np.arange(len(prediction)), predicted]
  right = _by_turns(np.flatnonzero(predicted == label), predicted, confidence)
  wrong = _by_turns(np.flatnonzero(predicted != label), predicted, confidence)
  wrongs = min(len(wrong), max(count // 2, count - len(right)))
  rights = min(len(right), count - wrongs)
  return [*_all(right[:rights], 'right'), *_all(wrong[:wrongs], 'wrong')]


def _all(
  samples: Iterable[int] | np.ndarray, verdict: Verdict
) -> list[tuple[int, Verdict]]:
  return [(int(i), verdict) for i in samples]


def _by_turns(
  among: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> list[int]:
  """Samples by confidence, alternating between the predicted classes."""
  order = among[np.argsort(-confidence[among], kind='stable')]
  turns = {
    int(i): turn
    for each in np.unique(predicted[among])
    for turn, i in enumerate(order[predicted[order] == each])
  }
  return sorted(turns, key=lambda i: (turns[i], -confidence[i], i))
