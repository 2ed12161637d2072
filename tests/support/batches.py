"""Batches of a run, for tests."""


def batches_of(run, split, modalities, batch_size):
  """All samples of a split once, in the order of the index."""
  return run.reader.read(run.plan(split, modalities, batch_size), modalities)
