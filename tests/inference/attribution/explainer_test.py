"""What a whole trained model says, shared out: networks, simple models, members."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from data_pipeline.format.modalities import Notes
from data_pipeline.reading.batching import Batching
from medm2t_jax import targets
from medm2t_jax.baselines import logistic_regression
from medm2t_jax.baselines.fitted_arrays import as_arrays
from medm2t_jax.baselines.summary_statistics import summarise
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.inference.attribution.additive import additive
from medm2t_jax.inference.attribution.explainer import Explainer
from medm2t_jax.inference.program import program
from medm2t_jax.inference.trained_model import Member, TrainedModel
from medm2t_jax.models.blend.weighted_sum import OURS
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.models.trunk import columns
from medm2t_jax.runs.checkpoint import Lineage
from tests.support import fake_batch, kinds

ROWS, EVENTS = 4, 12  # the last row is padding, the second has no laboratory value
WEIGHTS = {OURS: 0.5, 'boosted_trees': 0.4, 'logistic_regression': 0.3}
# Task -> members, and how encoders enter. Two modalities compile fast, and columns alone
# faster: they have gates as encoders have.
TASKS = {'mortality': (2, 'none'), 'cvd': (1, 'late'), 'los': (1, 'none')}
_MADE = {}


def batch_of(task, rows=ROWS, events=EVENTS, seed=0):
  return fake_batch.batch(rows=rows, task=task, events=events, seed=seed)


def member_of(task, config, seed):
  model = MedM2T(config)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), batch_of(task), stage='multimodal', train=False)
  )
  variables = fake_batch.variables(shapes, seed)
  # Random parameters hardly pass on what a sample says.
  if TASKS[task][1] == 'late':
    for name in config.names:
      variables['params']['fusion'][f'project_{name}']['kernel'] *= 5
  variables['params']['trunks_multimodal']['head'] *= 2
  target = fake_batch.schema(task).target
  table = summarise([batch_of(task, 60, 30, seed=seed + 5)], config.modalities)
  score = np.nan_to_num(table.value[:, 0]) + np.nan_to_num(table.value[:, 9])
  label = score + 3
  if not target.numeric:
    cuts = np.quantile(score, np.linspace(0, 1, target.outputs + 1)[1:-1])
    label = np.searchsorted(cuts, score).astype(float)
  table = dataclasses.replace(table, label=label)
  kind: Any = (
    HistGradientBoostingRegressor if target.numeric else HistGradientBoostingClassifier
  )
  constant = np.isnan(table.value).all(axis=0)
  trees = kind(max_iter=8, min_samples_leaf=3, early_stopping=False).fit(
    np.where(constant, 0, table.value), label
  )
  linear = logistic_regression.fit(table, table, target, refit=False).final
  prior = targets.of(target).prior(label, np.ones(len(label)))
  return Member(
    variables,
    {
      'weights': {name: np.float32(weight) for name, weight in WEIGHTS.items()},
      'prior': prior.astype(np.float32),
      'models': {
        'boosted_trees': as_arrays(trees, target),
        'logistic_regression': as_arrays(linear, target),
      },
    },
    Lineage(0, frozenset(), frozenset(), '', '', {}),
  )


def made(task):
  """A trained model of random networks, and its explainer."""
  if task not in _MADE:
    schema = fake_batch.schema(task).only(('static', 'labs'))
    members, deep = TASKS[task]
    options = dataclasses.replace(
      fake_batch.OPTIONS, trunk='ensemble', ensemble=2, deep=deep,
      fusion='none', sequence='mean_last',
    )  # fmt: skip
    config = model_config(task, options, schema)
    model = TrainedModel(
      schema=schema,
      options=options,
      batching=Batching(),
      batch_size=8,
      members=tuple(member_of(task, config, seed) for seed in range(members)),
      found={},
      key_fingerprint='',
      tests={},
      card='',
      example={},
      answer=np.empty(0),
    )
    _MADE[task] = model, Explainer(model)
  return _MADE[task]


@pytest.fixture(scope='module')
def binary():
  model, explainer = made('mortality')
  return model, explainer, explainer.explain(batch_of('mortality'))


def output_of(model, batch, chosen):
  """What is explained, from predictions."""
  predictions = np.asarray(jax.jit(program(model))(batch), np.float64)
  if model.schema.target.numeric:
    return predictions
  return np.log(predictions[:, chosen]) - np.log(predictions[:, 0])


@pytest.mark.parametrize(
  ('task', 'output'), [('mortality', None), ('cvd', 2), ('los', None)]
)
def test_attributions_add_up_to_what_the_whole_model_says(task, output):
  model, explainer = made(task)
  batch = batch_of(task)
  found = explainer.explain(batch, output)
  assert len(found) == ROWS - 1
  expected = output_of(model, batch, output or 1)
  np.testing.assert_allclose(
    [each.output for each in found], expected[: ROWS - 1], rtol=1e-4, atol=1e-4
  )
  for each in found:
    assert each.completeness.within(0.01, 0.01), each.completeness
    assert abs(each.output - each.baseline) > 0.01
    total = sum(item.attribution for item in each.items)
    assert total == pytest.approx(each.completeness.attributed, abs=1e-4)
    of_network = sum(
      array.sum() for arrays in each.attributions.values() for array in arrays.values()
    )
    assert abs(of_network) > 1e-3
    of_columns = sum(item.attribution for item in each.columns)
    assert total == pytest.approx(of_network + of_columns, abs=1e-4)


def test_of_one_member_the_trees_have_the_values_of_treeshap_on_log_odds():
  model, explainer = made('cvd')
  batch = batch_of('cvd')
  (member,) = model.members
  value = np.asarray(
    columns.table(model.model_config.columns, jax.tree.map(lambda x: x[None], batch))
  )
  each = [
    WEIGHTS[name] * np.diff(additive(arrays).attributions(value)[..., [0, 2]])[..., 0]
    for name, arrays in member.blend['models'].items()
  ]
  assert all(np.abs(one).max() > 0.01 for one in each)
  total = np.sum(each, axis=0)
  found = explainer.explain(batch, 2)
  assert found[0].explained == 'log odds of "stroke" against "none"'
  names = [
    one.name for part in model.model_config.modalities for one in part.column_variables()
  ]
  for row, one in enumerate(found):
    by_name = {item.name: item.attribution for item in one.columns}
    for name in ('age', 'weight', 'numeric 0'):
      expected = total[row, [other == name for other in names]].sum()
      assert by_name.get(name, 0.0) == pytest.approx(expected, abs=1e-5)
    assert sum(by_name.values()) == pytest.approx(total[row].sum(), abs=1e-5)


def test_what_is_absent_has_none_but_that_it_was_not_recorded(binary):
  _, _, found = binary
  assert found[0].attributions['labs']['token'].any()
  without = found[1]
  assert not without.arrays['labs']['mask'].any()
  assert not without.attributions['labs']['token'].any()
  of_labs = [item for item in without.items if item.modality == 'labs']
  assert of_labs and all(item.observed == 0 and item.value is None for item in of_labs)
  assert of_labs == [item for item in without.columns if item.modality == 'labs']
  assert {item.name for item in of_labs} <= {f'numeric {i}' for i in range(3)} | {'text 0'}
  # The level that a patient does not have speaks of the one that it has.
  for each in found:
    genders = [item.name for item in each.items if item.name.startswith('gender')]
    assert len(genders) <= 1


def test_padding_and_other_rows_change_nothing(binary):
  _, explainer, found = binary
  batch = batch_of('mortality')
  row = 2
  alone = jax.tree.map(lambda x: x[row : row + 1], {**batch, 'ecg': {}})
  pad = lambda array: np.pad(array, ((0, 0), (0, 4)))
  alone['labs'] = {key: pad(array) for key, array in alone['labs'].items()}
  (other,) = explainer.explain(alone)
  token = other.attributions['labs']['token']
  assert not token[EVENTS:].any()
  np.testing.assert_allclose(
    token[:EVENTS], found[row].attributions['labs']['token'], atol=2e-4
  )
  for one, again in zip(found[row].items, other.items, strict=True):
    assert (one.name, one.observed) == (again.name, again.observed)
    assert one.attribution == pytest.approx(again.attribution, abs=5e-4)


def test_without_a_modality_the_rest_predicts(binary):
  model, explainer, _ = binary
  batch = batch_of('mortality')
  found = explainer.without(batch)
  assert set(found) == {'static', 'labs'}
  predict = jax.jit(program(model))
  labs = {**batch['labs'], 'mask': np.zeros_like(batch['labs']['mask'])}
  np.testing.assert_allclose(found['labs'], predict({**batch, 'labs': labs}), atol=1e-6)
  full = np.asarray(predict(batch))
  assert np.abs(found['labs'][0] - full[0]).max() > 1e-4
  np.testing.assert_allclose(found['labs'][1], full[1], atol=1e-6)  # it has none


def test_outputs_that_there_are_not_are_refused(binary):
  _, explainer, _ = binary
  for output in (0, 2, -1):
    with pytest.raises(ValueError, match='cannot be explained'):
      explainer.explain(batch_of('mortality'), output)


def test_every_column_tells_of_a_variable():
  schema = kinds.replaced(fake_batch.schema(), letters=Notes(4))
  for each in model_config('mortality', fake_batch.OPTIONS, schema).modalities:
    variables = each.column_variables()
    assert len(variables) == len(each.column_names()) == each.columns.count
    for name, variable in zip(each.column_names(), variables, strict=True):
      for item in each.spec.variables:
        if name.split('/')[0].split('=')[0] == item.itemid:
          assert variable.variable.endswith(item.name.replace('_', ' '))
