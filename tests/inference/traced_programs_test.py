"""Programs that are kept between two starts of a service."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.inference import traced_programs
from medm2t_jax.inference.program import with_arrays
from tests.support import small_bundle


@pytest.fixture(scope='module')
def model():
  schema = small_bundle.schema().only(('static', 'labs'))
  return small_bundle.model(of=schema, trunk='ensemble', ensemble=2, deep='none')


@pytest.fixture
def kept(tmp_path):
  """The folder, empty."""
  before = jax.config.values['jax_compilation_cache_dir']
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  yield tmp_path / 'traced'
  jax.config.update('jax_compilation_cache_dir', before)


def counted(model):
  """The program of the first bucket, and how often it was traced for it."""
  predict, arrays = with_arrays(model)
  traces = []

  def run(*args):
    traces.append(1)
    return predict(*args)

  lengths = model.batching.buckets[0]
  program = traced_programs.kept_or_traced(model, run, arrays, lengths)
  request = {name: model.example[name] for name in ('row', *model.schema.names)}
  return np.asarray(jax.jit(program.call)(arrays, request)), len(traces)


def test_a_kept_program_is_not_traced_again_and_says_the_same(model, kept):
  first, traces = counted(model)
  assert traces == 1
  np.testing.assert_allclose(first, model.answer, atol=1e-6)
  again, traces = counted(model)
  assert traces == 0
  np.testing.assert_array_equal(again, first)
  assert [path.suffix for path in kept.iterdir()] == ['.jax']


def test_another_bundle_and_other_code_have_programs_of_their_own(model, kept, monkeypatch):
  assert counted(model)[1] == 1
  assert counted(dataclasses.replace(model, version='f' * 16))[1] == 1
  monkeypatch.setattr(traced_programs, '_sources', lambda: 'other')
  assert counted(model)[1] == 1
  assert len(list(kept.iterdir())) == 3


def test_a_damaged_one_is_named(model, kept):
  counted(model)
  (path,) = kept.iterdir()
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(DataError, match=rf'{path.name} is damaged\. Remove it'):
    counted(model)
