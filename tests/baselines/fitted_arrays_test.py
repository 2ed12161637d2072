"""Fitted baselines as arrays: they predict what scikit-learn predicts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.format.schema import Target
from medm2t_jax.baselines import boosted_trees, choosing, logistic_regression
from medm2t_jax.baselines.fitted_arrays import _rounded_down, as_arrays
from medm2t_jax.baselines.summary_statistics import Table
from medm2t_jax.models.blend.simple_models import outputs
from medm2t_jax.models.link import LEAST_PROBABILITY

BINARY = Target('binary', ('no', 'yes'))
FOUR = Target('multiclass', ('none', 'chd', 'stroke', 'failure'))
DAYS = Target('regression', unit='days', low=0.0)
# Name -> target and the classes that are trained on.
CASES = {
  'binary': (BINARY, (0, 1)),
  'multiclass': (FOUR, (0, 1, 2, 3)),
  'three of four': (FOUR, (0, 2, 3)),
  'two of four': (FOUR, (1, 3)),
  'one of four': (FOUR, (2,)),
  'one of two': (BINARY, (0,)),
  'days': (DAYS, ()),
}
NEVER_OBSERVED, NEARLY_CONSTANT, WITHOUT_MISSING = 3, 4, 5
_KEPT = {}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setitem(boosted_trees._FIXED, 'max_iter', 25)
  monkeypatch.setitem(boosted_trees._FIXED, 'min_samples_leaf', 3)


def _value(seed, rows=240):
  rng = np.random.default_rng(seed)
  value = rng.normal(size=(rows, 8)) * 10.0 ** np.arange(-3, 5)
  value[:, 1] = rng.integers(0, 4, rows)
  value[:, NEARLY_CONSTANT] = 2150 + 1e-4 * rng.integers(0, 5, rows)
  value[rng.random(value.shape) < 0.25] = np.nan
  value[:, NEVER_OBSERVED] = np.nan
  value[:, WITHOUT_MISSING] = rng.lognormal(size=rows)
  return value.astype(np.float32)


def _fitted(kind, case):
  """The model and its arrays; each is fitted once."""
  if (kind, case) not in _KEPT:
    target, classes = CASES[case]
    value = _value(0)
    score = np.log(value[:, WITHOUT_MISSING]) + np.isnan(value[:, 0]) + value[:, 6] / 1e3
    score = np.nan_to_num(score, nan=0.5)
    if target.numeric:
      label = 5 + score
    else:
      quantiles = np.linspace(0, 1, len(classes) + 1)[1:-1]
      position = np.searchsorted(np.quantile(score, quantiles), score)
      label = np.asarray(classes, float)[position]
    table = lambda rows: Table(
      np.arange(240)[rows], label[rows], np.ones(240)[rows], value[rows], ('',) * 8
    )
    train, validation = table(slice(0, 180)), table(slice(180, 240))
    if kind == 'trees':
      model = boosted_trees.fit(train, validation, target, 0, refit=False).final
    else:
      model = logistic_regression.fit(train, validation, target, refit=False).final
    _KEPT[kind, case] = model, as_arrays(model, target)
  return _KEPT[kind, case]


def _assert_predicts(found, model, value, target):
  expected = choosing.predict(model, value, target)
  if target.numeric:
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
  else:
    # scikit-learn takes one probability from 1, in float32.
    expected = np.maximum(expected, LEAST_PROBABILITY)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('kind', ['trees', 'linear'])
def test_predicts_what_the_fitted_model_predicts(kind, case):
  model, arrays = _fitted(kind, case)
  target, _ = CASES[case]
  value = _value(1)
  # Missing where it never was in training, and the reverse.
  value[:20, WITHOUT_MISSING] = np.nan
  value[10:30, NEVER_OBSERVED] = 1e3
  value[30:32], value[32:34] = np.nan, 1e30
  found = jax.jit(outputs)(arrays, value)
  assert found.shape == (len(value), target.outputs) and found.dtype == jnp.float32
  _assert_predicts(found, model, value, target)
  if len(CASES[case][1]) != 1:
    assert np.ptp(found, axis=0).max() > 0.1
  # With the arrays as constants of the program.
  np.testing.assert_allclose(
    jax.jit(lambda value: outputs(arrays, value))(value), found, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('case', ['binary', 'multiclass', 'days'])
def test_values_on_thresholds_go_where_they_go_in_scikit_learn(case):
  model, arrays = _fitted('trees', case)
  target, _ = CASES[case]
  rng = np.random.default_rng(2)
  value = _value(3, rows=400)
  inner = np.isfinite(arrays['threshold'])
  assert inner.any()
  for column in np.unique(arrays['feature'][inner]):
    own = arrays['threshold'][inner & (arrays['feature'] == column)]
    at = rng.choice(own, len(value))
    above = np.nextafter(at, np.float32(np.inf))
    value[:, column] = np.where(rng.random(len(value)) < 0.5, at, above)
  _assert_predicts(outputs(arrays, value), model, value, target)


def test_thresholds_are_rounded_down():
  rng = np.random.default_rng(0)
  values = (rng.normal(size=2000) * 10.0 ** rng.integers(-30, 30, 2000)).astype(np.float32)
  values = np.append(values, np.array([0, 1, -1], np.float32))
  up = np.nextafter(values, np.float32(np.inf)).astype(np.float64)
  # As scikit-learn has them: halfway between two values, or a value, or infinity.
  wild = np.array([1e39, -1e39, np.inf, 1e-300])
  threshold = np.concatenate([(values + up) / 2, values, wild])
  found = _rounded_down(threshold).astype(np.float32)
  with np.errstate(over='ignore'):
    above = np.nextafter(found, np.float32(np.inf))
  assert (found <= threshold).all()
  np.testing.assert_array_equal(above <= found, above <= threshold)


@pytest.mark.parametrize('case', ['multiclass', 'days'])
@pytest.mark.parametrize('kind', ['trees', 'linear'])
def test_a_row_does_not_depend_on_the_others(kind, case):
  _, arrays = _fitted(kind, case)
  predict = jax.jit(outputs)
  first, second = _value(4, rows=16), _value(5, rows=16)
  mixed = np.where(np.arange(16)[:, np.newaxis] % 2 == 0, first, second)
  np.testing.assert_array_equal(predict(arrays, mixed)[::2], predict(arrays, first)[::2])
  np.testing.assert_allclose(
    predict(arrays, first[3:4]), predict(arrays, first)[3:4], rtol=1e-5
  )


@pytest.mark.parametrize('case', ['two of four', 'one of four', 'days'])
@pytest.mark.parametrize('kind', ['trees', 'linear'])
def test_arrays_are_plain(kind, case, tmp_path):
  _, arrays = _fitted(kind, case)
  np.savez(tmp_path / 'arrays.npz', **arrays)
  with np.load(tmp_path / 'arrays.npz', allow_pickle=False) as file:
    kept = dict(file)
  assert all(array.size > 0 for array in kept.values())
  assert {str(array.dtype) for array in kept.values()} <= {'float32', 'int32', 'bool'}
  value = _value(6, rows=4)
  np.testing.assert_array_equal(outputs(kept, value), outputs(arrays, value))


@pytest.mark.parametrize('kind', ['trees', 'linear'])
def test_gradients_are_finite(kind):
  _, arrays = _fitted(kind, 'two of four')
  value = jnp.asarray(_value(7, rows=4))
  gradient = jax.grad(lambda value: outputs(arrays, value)[:, 1].sum())(value)
  assert np.isfinite(gradient).all()
  assert (gradient != 0).any() == (kind == 'linear')


def test_other_models_are_refused():
  with pytest.raises(TypeError, match='no arrays for a dict'):
    as_arrays({}, BINARY)
