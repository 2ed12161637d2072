"""A trained model as one function, and what it takes to load one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from data_pipeline.format.schema import Target
from medm2t_jax.inference.program import program
from medm2t_jax.runs.reader import Reader
from tests.support import small_bundle, staging_fixture

HEAVY = ('tensorflow', 'tensorflow_datasets', 'sklearn', 'matplotlib', 'optuna', 'pandas')


def test_what_predicts_and_serves_is_loaded_without_what_trains_and_reads():
  script = (
    'import sys\n'
    'import medm2t_jax.inference.trained_model, medm2t_jax.inference.exporting\n'
    'import medm2t_jax.inference.attribution.explainer\n'
    'import medm2t_jax.serve, medm2t_jax.serving.application\n'
    f'print(sorted(set({HEAVY}) & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == '[]'


def batch_of(model, dataset):
  """A batch of real rows of every device, and the predictions of the bundle (d b ...)."""
  dataset = dataclasses.replace(dataset, schema=model.schema)
  reader = Reader(dataset, model.batching)
  plan = reader.plan(np.arange(len(dataset)), model.schema.names, 8 * model.batch_size)
  batch = next(iter(reader.read_here(plan, model.schema.names)))
  return batch, model.predict(batch)


@pytest.fixture(scope='module')
def compiled(untrained):
  return jax.jit(program(untrained))


def test_it_predicts_what_the_bundle_predicts(untrained, compiled, dataset):
  batch, expected = batch_of(untrained, dataset)
  for device in (0, 1):
    one = jax.tree.map(lambda array, device=device: array[device], batch)
    # It does not ask for what nobody knows.
    one = {key: each for key, each in one.items() if key not in ('label', 'weight')}
    found = np.asarray(compiled(one))
    valid = one['row'] >= 0
    assert valid.any() and found.dtype == np.float32
    np.testing.assert_allclose(found[valid], expected[device][valid], atol=1e-5)
  assert np.ptp(expected[..., 1]) > 0.01  # it tells samples apart


@pytest.mark.parametrize(
  'target',
  [Target('regression', unit='days'), Target('multilabel', ('a', 'b', 'c'))],
  ids=lambda target: target.kind,
)
def test_numbers_and_labels(target):
  schema = dataclasses.replace(staging_fixture.SCHEMA, target=target)
  model = small_bundle.model(
    of=schema.only(('static', 'labs')), trunk='ensemble', ensemble=2, deep='none'
  )
  one = {**model.example, 'row': np.array([0, 1], np.int32)}
  found = np.asarray(jax.jit(program(model))(one))
  np.testing.assert_allclose(found, model.answer_again(), rtol=1e-5, atol=1e-6)
  assert found.shape == ((2,) if target.numeric else (2, 3))
