"""Reads and predicts waiting requests together, in two threads beside the server's.

One thread reads patients while the other predicts those read before. Less than a full batch
is read only if the other thread is idle, because patients take less time each when they are
read and predicted together. Explanations take long and have their own thread, so that
predictions never wait for them.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.reading.arranging import Example
from data_pipeline.sources.meds.patients import PatientReader, Patients
from medm2t_jax.serving.compiled import CompiledModel
from medm2t_jax.serving.explaining import ExplainedPatient, explained
from medm2t_jax.serving.metrics import ServiceMetrics
from medm2t_jax.serving.refusals import Refused
from medm2t_jax.serving.requests import joined

# Patients read in one pass: more than one batch holds, because they fall into several
# buckets.
_MOST_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class PredictedPatient:
  """The prediction for one patient.

  Attributes:
    prediction: probabilities (c), or a number ().
    coverage: from `PatientReader.read`.
    found: modality -> which of its variables the patient has, bool (v).
    present: modality -> whether the patient has any data of it.
    explanation: if it was requested.
  """

  prediction: np.ndarray
  coverage: Mapping[str, Any]
  found: Mapping[str, np.ndarray]
  present: Mapping[str, bool]
  explanation: ExplainedPatient | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
  """A waiting request."""

  patients: Patients
  reader: PatientReader
  explain: bool
  loop: asyncio.AbstractEventLoop
  future: asyncio.Future[list[PredictedPatient]]

  def __len__(self) -> int:
    return len(self.patients.prediction_time)


@dataclasses.dataclass(frozen=True)
class _Read:
  """A request whose patients have been read; input of the predicting thread.

  Attributes:
    work: the request.
    examples: its patients.
    coverage: of each patient.
  """

  work: _Work
  examples: Sequence[Example]
  coverage: Sequence[Mapping[str, Any]]


class _Waiting:
  """Requests that wait to be read, and the number of patients waiting for an answer."""

  def __init__(self, most: int, enough: int, gauge: Any, works: Callable[[], bool]):
    """Sets the limits.

    Args:
      most: largest number of waiting patients.
      enough: number of patients worth reading while others are predicted.
      gauge: metric of the number of waiting patients.
      works: whether the worker threads are running.
    """
    self._most, self._enough = most, enough
    self._gauge, self._works = gauge, works
    self._queue: collections.deque[_Work] = collections.deque()
    self._patients = 0
    self._changed = threading.Condition()
    self._closed = False
    self._idle = True

  @property
  def open(self) -> bool:
    """Whether requests are admitted."""
    return not self._closed and self._works()

  def admit(self, patients: int, work: _Work | None = None) -> None:
    """Counts patients as waiting, and queues the request to be read, if there is one.

    Raises:
      Refused: too many patients are waiting, or the service is shutting down.
    """
    with self._changed:
      if not self.open:
        raise Refused(503, 'closing', 'the service ends', headers={'Retry-After': '5'})
      if self._patients and self._patients + patients > self._most:
        text = f'{self._patients} patients are waiting; the limit is {self._most}'
        raise Refused(503, 'busy', text, headers={'Retry-After': '1'})
      self._count(patients)
      if work is not None:
        self._queue.append(work)
        self._changed.notify()

  def leave(self, patients: int) -> None:
    """Counts patients as answered."""
    with self._changed:
      self._count(-patients)

  @contextlib.contextmanager
  def idle(self) -> Iterator[None]:
    """While the predicting thread is idle: whatever waits is read at once."""
    self._set_idle(True)
    try:
      yield
    finally:
      self._set_idle(False)

  def take(self) -> list[_Work]:
    """Takes waiting requests, up to a limit; an empty list means shutdown."""
    with self._changed:
      self._changed.wait_for(lambda: self._closed or self._worth_reading())
      taken = []
      while self._queue and (
        not taken or sum(map(len, taken)) + len(self._queue[0]) <= _MOST_TOGETHER
      ):
        taken.append(self._queue.popleft())
      return taken

  def close(self) -> None:
    """Stops admitting requests."""
    with self._changed:
      self._closed = True
      self._changed.notify()

  def _set_idle(self, idle: bool) -> None:
    with self._changed:
      self._idle = idle
      self._changed.notify()

  def _queued(self) -> int:
    return sum(map(len, self._queue))

  def _worth_reading(self) -> bool:
    return bool(self._queue) and (self._idle or self._queued() >= self._enough)

  def _count(self, patients: int) -> None:
    self._patients += patients
    self._gauge.set(self._patients)


class MicroBatches:
  """The worker threads: `start` them, `predict` from the event loop, `close` them."""

  def __init__(
    self,
    model: CompiledModel,
    explainer: Any,
    metrics: ServiceMetrics,
    max_waiting: int,
  ):
    """Prepares the workers.

    Args:
      model: compiled.
      explainer: `medm2t_jax.inference.attribution.Explainer` of the same model.
      metrics: to count in.
      max_waiting: largest number of waiting patients.
    """
    self._model, self._explainer, self._metrics = model, explainer, metrics
    self._read: queue.SimpleQueue[Sequence[_Read]] = queue.SimpleQueue()
    thread = lambda run, name: threading.Thread(target=run, name=name, daemon=True)
    self._threads = thread(self._reads, 'reading'), thread(self._predicts, 'predictions')
    self._explanations = concurrent.futures.ThreadPoolExecutor(1, 'explanations')
    works = lambda: all(each.is_alive() for each in self._threads)
    self._waiting = _Waiting(max_waiting, model.most_rows, metrics.waiting, works)

  @property
  def ready(self) -> bool:
    """Whether requests are answered."""
    return self._waiting.open

  def start(self) -> None:
    """Starts the threads."""
    for each in self._threads:
      each.start()

  def close(self) -> None:
    """Answers all waiting requests and stops."""
    self._waiting.close()
    for each in self._threads:
      each.join()
    self._explanations.shutdown()

  async def predict(
    self, patients: Patients, reader: PatientReader, *, explain: bool = False
  ) -> list[PredictedPatient]:
    """Predicts patients together with all other waiting patients.

    Raises:
      Refused: too many patients are waiting, or the service is shutting down.
      DataError: the reader cannot read them.
    """
    loop = asyncio.get_running_loop()
    work = _Work(patients, reader, explain, loop, loop.create_future())
    self._waiting.admit(len(work), work)
    return await work.future

  async def explore(self, tell: Callable[[], str]) -> str:
    """Runs `tell` in the thread of the explanations and returns its page.

    Raises:
      Refused: too many patients are waiting, or the service is shutting down.
    """
    self._waiting.admit(1)
    try:
      loop = asyncio.get_running_loop()
      return await loop.run_in_executor(self._explanations, tell)
    finally:
      self._waiting.leave(1)

  def _reads(self) -> None:
    """The reading thread."""
    while together := self._waiting.take():
      for reader in {id(work.reader): work.reader for work in together}.values():
        self._read_together([work for work in together if work.reader is reader])
    self._read.put([])

  def _predicts(self) -> None:
    """The predicting thread."""
    while together := self._all_read():
      self._answer(together)

  def _all_read(self) -> list[_Read]:
    """Takes requests that have been read, up to a limit; an empty list means shutdown."""
    taken: list[_Read] = []
    while sum(len(each.work) for each in taken) < _MOST_TOGETHER:
      if taken and self._read.empty():
        break
      with self._waiting.idle() if self._read.empty() else contextlib.nullcontext():
        more = self._read.get()
      if not more:  # shutdown, after these are predicted
        self._read.put(more)
        break
      taken += more
    return taken

  def _read_together(self, works: Sequence[_Work]) -> None:
    """Passes the requests on; those that cannot be read get their error."""
    try:
      read = works[0].reader.read(joined([work.patients for work in works]))
    except Exception as error:
      if len(works) == 1:
        self._give(works[0], error)
      else:
        for work in works:
          self._read_together([work])
    else:
      places = zip(works, _slices(works), strict=True)
      self._read.put(
        [_Read(work, read.examples[of], read.coverage[of]) for work, of in places]
      )

  def _answer(self, together: Sequence[_Read]) -> None:
    """Gives every one of these requests its predictions, or the error that occurred."""
    try:
      answers = self._predicted(together)
    except Exception as error:
      if len(together) == 1:
        self._give(together[0].work, error)
      else:
        for each in together:
          self._answer([each])
      return
    for each, of in zip(together, _slices([each.work for each in together]), strict=True):
      if not all(np.isfinite(one.prediction).all() for one in answers[of]):
        self._give(each.work, FloatingPointError('a prediction is not finite'))
      elif each.work.explain:
        self._explanations.submit(self._explain, each, answers[of])
      else:
        self._give(each.work, answers[of])

  def _predicted(self, together: Sequence[_Read]) -> list[PredictedPatient]:
    """Predicts all patients of these requests."""
    examples = [example for each in together for example in each.examples]
    coverage = [one for each in together for one in each.coverage]
    answers: dict[int, PredictedPatient] = {}
    for batch in self._model.batches(examples):
      predictions = self._model.predict(batch)
      found = self._model.found(batch)
      present = self._model.present(batch, found)
      self._metrics.batch_rows.observe(len(batch.patients))
      for row, index in enumerate(batch.patients):
        has = {name: of[row] for name, of in found.items()}
        answers[index] = PredictedPatient(
          predictions[row],
          coverage[index],
          has,
          {name: bool(of[row]) for name, of in present.items()},
        )
    self._metrics.patients.inc(len(answers))
    return [answers[index] for index in range(len(examples))]

  def _explain(self, read: _Read, answers: Sequence[PredictedPatient]) -> None:
    try:
      full = []
      for answer, example in zip(answers, read.examples, strict=True):
        (batch,) = self._model.batches([example])
        found = explained(self._model.model, self._explainer, batch.arrays)
        full.append(dataclasses.replace(answer, explanation=found))
    except Exception as error:
      self._give(read.work, error)
    else:
      self._give(read.work, full)

  def _give(self, work: _Work, answer: Sequence[PredictedPatient] | Exception) -> None:
    """Passes an answer or an error to the event loop of a request, which may be gone."""

    def give() -> None:
      if work.future.cancelled():
        return
      if isinstance(answer, Exception):
        work.future.set_exception(answer)
      else:
        work.future.set_result(list(answer))

    self._waiting.leave(len(work))
    work.loop.call_soon_threadsafe(give)


def _slices(works: Sequence[_Work]) -> list[slice]:
  """Positions of each request's patients among all patients."""
  ends = [*itertools.accumulate(map(len, works))]
  return [slice(end - len(work), end) for work, end in zip(works, ends, strict=True)]
