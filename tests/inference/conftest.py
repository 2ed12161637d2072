"""A bundle that nobody has trained, for all that only predicts."""

import pytest

from data_pipeline.reading.batching import Batching
from tests.support import small_bundle, staging_fixture

BATCHING = Batching(
  buckets=({'labs': 16}, {'labs': 32}), max_recordings=2, recordings_per_row=1.0
)


@pytest.fixture(scope='session')
def untrained():
  """A model of two members, with ECGs and a blend; unsaved."""
  schema = staging_fixture.SCHEMA.only(('static', 'labs', 'ecg'))
  return small_bundle.model(of=schema, batching=BATCHING, members=2, blended=True)
