"""Requests that wait together: each gets its own answer, and reading does not wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources.meds.patients import Patients, Read
from medm2t_jax.serving.batching import MicroBatches
from medm2t_jax.serving.compiled import PatientBatch
from medm2t_jax.serving.metrics import ServiceMetrics
from medm2t_jax.serving.refusals import Refused

SECONDS = 20  # nothing here takes as long


class Model:
  """Predicts what is read of a patient, two patients a batch."""

  most_rows = 2

  def __init__(self):
    self.may_predict = threading.Event()
    self.may_predict.set()

  def batches(self, examples):
    for first in range(0, len(examples), 2):
      places = [*range(first, min(first + 2, len(examples)))]
      yield PatientBatch(places, 0, {'x': [examples[place] for place in places]})

  def predict(self, batch):
    assert self.may_predict.wait(SECONDS)
    return np.array([[each] for each in batch.arrays['x']], float)

  def found(self, batch):
    del batch
    return {}

  def present(self, batch, found):
    del batch
    return found


class Reader:
  """Reads the prediction time; of one before 1970 it has none, and one of 0 is wrong."""

  def __init__(self):
    self.may_read, self.reads = threading.Event(), 0
    self.may_read.set()

  def read(self, patients):
    self.reads += 1
    assert self.may_read.wait(SECONDS)
    time = patients.prediction_time.astype(float)
    if not time.all():
      raise DataError('at the beginning of time')
    time[time < 0] = np.nan
    return Read(time.tolist(), [{} for _ in time])


def patients(*times):
  table = pa.table({'patient': pa.array([], pa.int64())})
  return Patients(table, np.array(times, np.int64), [()] * len(times), [{}] * len(times))


async def tasks_of(batches, reader, requests):
  """Requests that have begun to wait."""
  tasks = [asyncio.create_task(batches.predict(each, reader)) for each in requests]
  await asyncio.sleep(0)
  return tasks


@pytest.fixture
def model():
  return Model()


@pytest.fixture
def batches(model):
  made = MicroBatches(model, None, ServiceMetrics(), 100)
  made.start()
  yield made
  made.close()


def predictions(answers: Any) -> list[float]:
  return [float(each.prediction[0]) for each in answers]


def test_each_request_gets_its_own_answer_or_its_own_error(batches):
  reader = Reader()

  async def run():
    reader.may_read.clear()  # the first is being read while all others come
    (first,) = await tasks_of(batches, reader, [patients(7)])
    while not reader.reads:
      await asyncio.sleep(0.01)
    requests = [patients(1, 2, 3), patients(0), patients(4, -1), patients(5)]
    rest = await tasks_of(batches, reader, requests)
    reader.may_read.set()
    return await asyncio.gather(first, *rest, return_exceptions=True)

  first, three, refused, wrong, last = asyncio.run(run())
  assert predictions(first) == [7]
  assert predictions(three) == [1, 2, 3] and predictions(last) == [5]
  assert isinstance(refused, DataError)
  assert isinstance(wrong, FloatingPointError)  # 500, not the fault of who asks
  assert reader.reads == 6  # one, all the others together, then each of them alone


def test_a_full_batch_is_read_while_others_are_predicted_and_less_waits(batches, model):
  reader = Reader()

  async def reads(count):
    async with asyncio.timeout(SECONDS / 2):
      while reader.reads < count:
        await asyncio.sleep(0.01)

  async def run():
    model.may_predict.clear()
    tasks = await tasks_of(batches, reader, [patients(1)])  # at once: nobody is predicted
    await reads(1)
    tasks += await tasks_of(batches, reader, [patients(2)])
    await asyncio.sleep(0.05)
    assert reader.reads == 1
    tasks += await tasks_of(batches, reader, [patients(3)])
    await reads(2)
    assert not any(task.done() for task in tasks)
    tasks += await tasks_of(batches, reader, [patients(4)])
    model.may_predict.set()
    return await asyncio.gather(*tasks)

  assert [predictions(each) for each in asyncio.run(run())] == [[1], [2], [3], [4]]
  assert reader.reads == 3  # the last one, less than a batch, once nobody is predicted


def test_what_was_accepted_is_answered_at_the_end(model):
  batches, reader = MicroBatches(model, None, ServiceMetrics(), 100), Reader()
  batches.start()

  async def run():
    model.may_predict.clear()
    tasks = await tasks_of(batches, reader, [patients(each) for each in (1, 2, 3)])
    closing = asyncio.get_running_loop().run_in_executor(None, batches.close)
    model.may_predict.set()
    return await asyncio.gather(*tasks, closing)

  *answers, _ = asyncio.run(run())
  assert [predictions(each) for each in answers] == [[1], [2], [3]]
  assert not batches.ready


def test_where_nobody_works_nobody_waits(model):
  """Before it is started, or where a thread has ended, requests are refused at once."""
  batches = MicroBatches(model, None, ServiceMetrics(), 100)
  with pytest.raises(Refused) as refused:
    asyncio.run(batches.predict(patients(1), Reader()))
  assert refused.value.status == 503 and not batches.ready
