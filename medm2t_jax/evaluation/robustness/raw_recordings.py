"""Batches whose signals are read again from damaged raw recordings.

Sampling rates and noise are changed before the conditioning, which the raw recordings go
through again. Measurements and report terms of the machine stay unchanged.
"""

from __future__ import annotations

import concurrent.futures
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline import processors
from data_pipeline.ecg import rereading
from data_pipeline.ecg.rereading import Damage, Recording
from data_pipeline.format.modalities import base
from medm2t_jax.runs.run import Batch

_Conditioned = tuple[np.ndarray, float] | None


class RawRecordings:
  """Makes batches whose ECG signals come from damaged raw recordings.

  Attributes:
    refused: damage -> number of recordings refused by the conditioning so far; they are
      absent from the batch, because a preparation would drop them.
  """

  def __init__(self, name: str, located: Mapping[int, Sequence[Recording]], seed: int):
    """Prepares rereading.

    Args:
      name: of the modality.
      located: index row -> its recordings, as `rereading.locate` finds them.
      seed: of the noise.
    """
    self._name = name
    self.refused: Counter[Damage] = Counter()
    self._located = located
    self._seed = seed

  def versions(self, batch: Batch, damages: Sequence[Damage]) -> Iterator[dict[str, Any]]:
    """The batch under each damage, in order; the next one is prepared meanwhile."""
    slots = self._slots(batch)
    # SciPy and NumPy release the interpreter's lock in the slow parts.
    with concurrent.futures.ThreadPoolExecutor(processors.available()) as pool:
      submit = lambda damage: {
        recording: pool.submit(rereading.read_damaged, recording, damage, self._seed)
        for recording in dict.fromkeys(slots.values())
      }
      following = submit(damages[0]) if damages else {}
      for number, damage in enumerate(damages, start=1):
        ready = {recording: future.result() for recording, future in following.items()}
        following = submit(damages[number]) if number < len(damages) else {}
        yield self._replaced(batch, slots, ready, damage)

  def _slots(self, batch: Batch) -> dict[tuple[int, int], Recording]:
    """(device, slot) -> recording."""
    result = {}
    for device, rows in enumerate(batch['row'].tolist()):
      held = [each for row in rows if row >= 0 for each in self._located[row]]
      assert len(held) == batch[self._name]['mask'][device].sum()
      result |= {(device, slot): each for slot, each in enumerate(held)}
    return result

  def _replaced(
    self,
    batch: Batch,
    slots: Mapping[tuple[int, int], Recording],
    conditioned: Mapping[Recording, _Conditioned],
    damage: Damage,
  ) -> dict[str, Any]:
    arrays = batch[self._name]
    signal, gain = np.array(arrays['signal']), np.array(arrays['gain'])
    keep = np.array(arrays['mask'])
    for place, recording in slots.items():
      result = conditioned[recording]
      if result is None:
        keep[place] = False
        self.refused[damage] += 1
      else:
        signal[place], gain[place] = result
    replaced = {**arrays, 'signal': signal, 'gain': gain}
    return {**batch, self._name: base.kept(replaced, keep)}
