"""A bundle that nobody has trained, for all that only predicts."""

import pytest

from tests.support.fake_bundle import fake_bundle


@pytest.fixture(scope='session')
def untrained():
  """A model of two members, with ECGs and a blend; unsaved."""
  return fake_bundle()
