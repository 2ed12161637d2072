"""Damage to the ECGs of a batch: exchanged or lost leads, other rates, noise.

Exchanging and losing leads commutes with the conditioning, which treats every lead alike,
so the conditioned signals are changed. Rates and noise belong before it: the raw
recordings are read again. Measurements and report terms stay as the machine gave them.
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
from data_pipeline.format.schema import ECG_LEADS
from medm2t_jax.evaluation.robustness import masking
from medm2t_jax.runs.run import Batch

_EXCHANGED = {'II': 'III', 'III': 'II', 'aVR': 'aVL', 'aVL': 'aVR'}
_SOURCE = [ECG_LEADS.index(_EXCHANGED.get(lead, lead)) for lead in ECG_LEADS]
_SIGN = np.array([-1 if lead == 'I' else 1 for lead in ECG_LEADS], np.int16)

_Conditioned = tuple[np.ndarray, float] | None


def arms_exchanged(batch: Batch) -> dict[str, Any]:
  """The electrodes of the two arms exchanged.

  Lead I is left arm less right arm and turns over; II and III exchange, so do aVR and
  aVL; aVF and the chest leads, against the mean of the limbs, stay.
  """
  ecg = batch['ecg']
  return {**batch, 'ecg': {**ecg, 'signal': ecg['signal'][..., _SOURCE] * _SIGN}}


def leads_lost(batch: Batch, count: int, seed: int) -> dict[str, Any]:
  """`count` random leads of each recording flat; those of fewer are among them.

  The conditioning refuses a recording with more flat leads than it allows: more of them
  here show what that rule is worth.
  """
  ecg = batch['ecg']
  row = masking.owners(batch)
  lost = np.zeros((*row.shape, len(ECG_LEADS)), bool)
  generators: dict[int, np.random.Generator] = {}
  for place in np.argwhere(ecg['mask']):
    sample = int(row[tuple(place)])
    if sample not in generators:
      generators[sample] = masking.generator(sample, seed, 'leads')
    lost[(*place, generators[sample].permutation(len(ECG_LEADS))[:count])] = True
  signal = np.where(lost[:, :, None], np.int16(0), ecg['signal'])
  return {**batch, 'ecg': {**ecg, 'signal': signal}}


class RawRecordings:
  """Batches whose ECG signals come from damaged raw recordings.

  Attributes:
    refused: damage -> recordings that the conditioning has refused so far; they are
      absent from the batch, as a preparation drops them.
  """

  def __init__(self, located: Mapping[int, Sequence[Recording]], seed: int):
    """Args:
    located: index row -> its recordings, as `rereading.locate` finds them.
    seed: of the noise.
    """
    self.refused: Counter[Damage] = Counter()
    self._located = located
    self._seed = seed

  def versions(self, batch: Batch, damages: Sequence[Damage]) -> Iterator[dict[str, Any]]:
    """The batch under each damage, in order; the next is made ready meanwhile."""
    slots = self._slots(batch)
    # SciPy and NumPy release the interpreter's lock in what takes long.
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
      assert len(held) == batch['ecg']['mask'][device].sum()
      result |= {(device, slot): each for slot, each in enumerate(held)}
    return result

  def _replaced(
    self,
    batch: Batch,
    slots: Mapping[tuple[int, int], Recording],
    conditioned: Mapping[Recording, _Conditioned],
    damage: Damage,
  ) -> dict[str, Any]:
    ecg = batch['ecg']
    signal, gain = np.array(ecg['signal']), np.array(ecg['gain'])
    keep = np.array(ecg['mask'])
    for place, recording in slots.items():
      result = conditioned[recording]
      if result is None:
        keep[place] = False
        self.refused[damage] += 1
      else:
        signal[place], gain[place] = result
    replaced = {**ecg, 'signal': signal, 'gain': gain}
    return {**batch, 'ecg': masking.keep_recordings(replaced, keep)}
