"""Weights of several predictors: the optimum, its shrinkage, and the blend."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from data_pipeline.format.schema import Target
from medm2t_jax.models.blend.weighted_sum import blend
from medm2t_jax.training.blend_weights import _objective, fit_weights

CLASSES = Target('multiclass', ('none', 'chd', 'stroke'))
DAYS = Target('regression', unit='days', low=0.0)
LABELS = Target('multilabel', ('shock', 'sepsis', 'arrest'))
PRIOR = {
  'multiclass': np.log([0.5, 0.3, 0.2]),
  'regression': np.array([5.0]),
  'multilabel': special.logit([0.5, 0.3, 0.2]),
}
LINK = {'multiclass': 'softmax', 'regression': 'identity', 'multilabel': 'sigmoid'}
TARGETS = pytest.mark.parametrize(
  'target', [CLASSES, DAYS, LABELS], ids=lambda each: each.kind
)


def _data(target, count, *, seed=0):
  """Outputs of a good, a fair and a useless predictor, and labels."""
  rng = np.random.default_rng(seed)
  prior = PRIOR[target.kind]
  noise = lambda size: rng.normal(size=(count, len(prior))) * size
  signal = noise(1.5)
  outputs = {
    'useless': prior + noise(1.5),
    'good': prior + signal + noise(0.5),
    'fair': prior + signal + noise(1.5),
  }
  if target.numeric:
    return outputs, (prior + signal + noise(1.0))[:, 0]
  if target is LABELS:
    label = (prior + signal + rng.logistic(size=signal.shape) > 0).astype(float)
    return outputs, np.where(rng.random(label.shape) < 0.1, -1, label)
  outputs = {name: special.log_softmax(each, axis=1) for name, each in outputs.items()}
  label = np.argmax(prior + signal + rng.gumbel(size=signal.shape), axis=1)
  return outputs, label.astype(float)


@TARGETS
def test_gradient(target):
  outputs, label = _data(target, 50)
  said = np.stack(list(outputs.values())) - PRIOR[target.kind]
  objective = _objective(said, label, np.ones(len(label)), PRIOR[target.kind], target, 0.2)
  for weights in ([0.1, 0.9, 0.3], [0.0, 2.0, 0.0]):
    gradient = objective(np.array(weights))[1]
    expected = optimize.approx_fprime(weights, lambda each: objective(each)[0], 1e-7)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@TARGETS
def test_good_predictors_weigh_more_and_none_weighs_less_than_0(target):
  outputs, label = _data(target, 400)
  prior = PRIOR[target.kind]
  weights = fit_weights(outputs, label, np.ones(len(label)), prior, target)
  assert list(weights) == list(outputs)
  assert weights['good'] > weights['fair'] > weights['useless'] >= 0
  reverse = {'good': outputs['good'], 'reverse': 4 * prior - 3 * outputs['good']}
  weights = fit_weights(reverse, label, np.ones(len(label)), prior, target)
  assert weights['reverse'] == 0 and weights['good'] > 0.5


@TARGETS
def test_the_optimum(target):
  outputs, label = _data(target, 300)
  prior = PRIOR[target.kind]
  found = fit_weights(outputs, label, np.ones(len(label)), prior, target, weight_sd=0.3)

  def loss(weights):
    blended = blend(
      outputs, dict(zip(outputs, weights, strict=True)), prior, LINK[target.kind]
    )
    if target is LABELS:
      each = np.logaddexp(0, np.where(label > 0, -blended, blended))
      known = label >= 0
      data = np.sum(np.sum(each, 1, where=known) / np.maximum(known.sum(1), 1))
    elif target is CLASSES:
      data = -blended[np.arange(300), label.astype(int)].sum()
    else:
      equal = np.mean(list(outputs.values()), axis=0)[:, 0]
      size = lambda days: np.sqrt(np.square(days - label) + 0.1**2)
      data = size(blended[:, 0]).sum() / size(equal).mean()
    return data + np.square(np.array(weights) - 1 / 3).sum() / (2 * 0.3**2)

  least = optimize.minimize(
    loss, np.full(3, 0.5), method='SLSQP', bounds=[(0, None)] * 3, options={'ftol': 1e-12}
  )
  np.testing.assert_allclose(list(found.values()), least.x, atol=1e-4)


@TARGETS
def test_few_samples_leave_equal_weights_and_many_do_not(target):
  prior = PRIOR[target.kind]
  few = fit_weights(*_data(target, 3), np.ones(3), prior, target, weight_sd=0.05)
  np.testing.assert_allclose(list(few.values()), 1 / 3, atol=0.05)
  outputs, label = _data(target, 30_000)
  many = fit_weights(outputs, label, np.ones(len(label)), prior, target)
  free = fit_weights(outputs, label, np.ones(len(label)), prior, target, weight_sd=1e6)
  np.testing.assert_allclose(list(many.values()), list(free.values()), atol=0.01)
  assert free['good'] > 0.6 and free['useless'] < 0.05


@TARGETS
def test_one_sample(target):
  outputs, label = _data(target, 1)
  weights = fit_weights(outputs, label, np.ones(len(label)), PRIOR[target.kind], target)
  assert np.isfinite(list(weights.values())).all()


def test_the_order_of_predictors_has_no_influence():
  outputs, label = _data(CLASSES, 100)
  reverse = dict(reversed(outputs.items()))
  prior = PRIOR['multiclass']
  weights = fit_weights(outputs, label, np.ones(len(label)), prior, CLASSES)
  assert fit_weights(reverse, label, np.ones(len(label)), prior, CLASSES) == weights
  np.testing.assert_array_equal(
    blend(reverse, dict(reversed(weights.items())), prior, 'softmax'),
    blend(outputs, weights, prior, 'softmax'),
  )


def test_the_only_predictor_has_weight_1():
  outputs, label = _data(CLASSES, 10)
  only = {'useless': outputs['useless']}
  assert fit_weights(only, label, np.ones(len(label)), PRIOR['multiclass'], CLASSES) == {
    'useless': 1.0
  }


def test_a_class_that_no_subject_has():
  outputs, label = _data(CLASSES, 200)
  label = np.where(label == 2, 0, label)
  weights = fit_weights(outputs, label, np.ones(len(label)), PRIOR['multiclass'], CLASSES)
  assert np.isfinite(list(weights.values())).all() and weights['good'] > weights['useless']


@TARGETS
def test_predictors_that_agree(target):
  output = _data(target, 20)[0]['good']
  weights = {'a': 0.2, 'b': 0.5, 'c': 0.3}
  found = blend(
    dict.fromkeys(weights, output), weights, PRIOR[target.kind], LINK[target.kind]
  )
  np.testing.assert_allclose(found, output, atol=1e-12)
  # Nobody says anything.
  nobody = dict.fromkeys(weights, 0.0)
  found = blend(
    dict.fromkeys(weights, output), nobody, PRIOR[target.kind], LINK[target.kind]
  )
  np.testing.assert_allclose(found, np.tile(PRIOR[target.kind], (20, 1)), atol=1e-12)


@TARGETS
def test_blend_in_jax_and_of_any_leading_axes(target):
  outputs, _ = _data(target, 12)
  weights = {'useless': 0.1, 'good': 0.9, 'fair': 0.4}
  prior = PRIOR[target.kind]
  expected = blend(outputs, weights, prior, LINK[target.kind])
  assert isinstance(expected, np.ndarray)
  if target is CLASSES:
    np.testing.assert_allclose(np.exp(expected).sum(axis=-1), 1)
  parts = {name: jnp.asarray(each).reshape(3, 4, -1) for name, each in outputs.items()}
  found = jax.jit(lambda parts: blend(parts, weights, prior, LINK[target.kind]))(parts)
  np.testing.assert_allclose(found, expected.reshape(3, 4, -1), rtol=1e-5, atol=1e-5)
  one = blend(
    {name: each[0] for name, each in outputs.items()}, weights, prior, LINK[target.kind]
  )
  np.testing.assert_allclose(one, expected[0])


@pytest.mark.parametrize('where', ['output', 'label', 'prior'])
def test_what_is_not_finite_is_refused(where):
  outputs, label = _data(CLASSES, 10)
  prior = PRIOR['multiclass'].copy()
  {'output': outputs['good'], 'label': label, 'prior': prior}[where][2] = -np.inf
  with pytest.raises(ValueError, match='finite'):
    fit_weights(outputs, label, np.ones(len(label)), prior, CLASSES)


@pytest.mark.parametrize('target', [CLASSES, LABELS], ids=lambda each: each.kind)
def test_a_weight_of_three_is_three_copies(target):
  outputs, label = _data(target, 60)
  weight = np.random.default_rng(0).choice([1, 3], 60)
  copies = np.repeat(np.arange(60), weight)
  prior = PRIOR[target.kind]
  found = fit_weights(outputs, label, weight, prior, target)
  twins = {name: each[copies] for name, each in outputs.items()}
  expected = fit_weights(twins, label[copies], np.ones(len(copies)), prior, target)
  equal = fit_weights(outputs, label, np.ones(60), prior, target)
  assert found == pytest.approx(expected, abs=1e-4)
  assert found != pytest.approx(equal, abs=1e-3)
