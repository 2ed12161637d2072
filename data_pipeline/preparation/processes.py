"""Writes shards in local processes."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool

from data_pipeline import child_process
from data_pipeline.format.schema import DataError
from data_pipeline.preparation import shards


def run(jobs: Sequence[shards.Job], done: Callable[[], object], *, workers: int) -> None:
  """Writes the shards, `workers` at a time.

  Args:
    jobs: one per shard.
    done: called after each shard.
    workers: number of processes; 1: this process.

  Raises:
    DataError: as `shards.write_shard`, or a worker died.
  """
  if workers == 1 or len(jobs) == 1:
    for job in jobs:
      shards.write_shard(job)
      done()
    return
  with concurrent.futures.ProcessPoolExecutor(
    min(workers, len(jobs)),
    mp_context=child_process.context(shards.__name__),
    initializer=child_process.end_with_parent,
  ) as pool:
    futures = [pool.submit(shards.write_shard, job) for job in jobs]
    try:
      for future in concurrent.futures.as_completed(futures):
        future.result()
        done()
    except BrokenProcessPool as error:
      raise DataError(
        'a worker process died, probably for lack of memory. Run the same command '
        'again with fewer --workers; finished shards are kept.'
      ) from error
    finally:
      pool.shutdown(cancel_futures=True)
