"""Gates of columns against a slow oracle.

Their values are tested in tests/baselines/summary_statistics_test.py.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from medm2t_jax.baselines.summary_statistics import column_names
from medm2t_jax.models.gates import open_gates, with_gates
from tests.support import fake_batch

SCHEMA = fake_batch.schema('mortality')
MODALITIES = fake_batch.config('mortality').modalities
KINDS = {each.name: each.columns for each in MODALITIES}
ROWS = 6


def gated_batch(seed=0):
  """A batch with random gates beside its arrays."""
  batch = fake_batch.batch(ROWS, seed=seed, samples=640)
  # Two values at one time.
  batch['labs']['time'][0, :4] = batch['labs']['time'][0, 0]
  rng = np.random.default_rng(seed)
  gates = jax.tree.map(
    lambda gate: rng.uniform(0, 1, gate.shape).astype(np.float32),
    open_gates(batch, {each.name: each.gates for each in MODALITIES}),
  )
  return batch, with_gates(batch, gates)


def names_of(name):
  return [
    each.removeprefix(f'{name}/')
    for each in column_names(MODALITIES)
    if each.startswith(f'{name}/')
  ]


def mean(gates):
  return float(np.mean(gates)) if len(gates) else 1.0


def of_numbers(statistic, value, gate, time):
  """Mean gate of the observations that a statistic of numbers is made of."""
  if not len(value) or statistic in ('count', 'hours_since_last'):
    return 1.0
  at = lambda end, best: gate[(time == end) & (value == best(value[time == end]))]
  chosen = {
    'first': lambda: at(time.min(), np.min),
    'last': lambda: at(time.max(), np.max),
    'min': lambda: gate[value == value.min()],
    'max': lambda: gate[value == value.max()],
  }
  return mean(chosen.get(statistic, lambda: gate)())


def oracle(batch, name, row):
  arrays, result = batch[name], []
  for column in names_of(name):
    of_item, _, statistic = column.partition('/')
    itemid, _, category = of_item.partition('=')
    if name == 'static':
      if category:
        result.append(arrays['categorical_gate'][row, 0])
      else:
        places = [item.itemid for item in SCHEMA.modalities['static'].numeric]
        result.append(arrays['numeric_gate'][row, places.index(itemid)])
    elif name == 'vitals':
      signal = [item.itemid for item in SCHEMA.modalities[name].items].index(itemid)
      seen = arrays['observed'][row, :, signal]
      gate = arrays['value_gate'][row, seen, signal]
      value = arrays['value'][row, seen, signal]
      result.append(of_numbers(statistic, value, gate, np.flatnonzero(seen)))
    else:
      items = SCHEMA.modalities[name].items
      item = [each.itemid for each in items].index(itemid)
      own = arrays['mask'][row] & (arrays['item'][row] == item)
      gate, time = arrays['token_gate'][row, own], arrays['time'][row, own]
      if not items[item].categories:
        value = arrays['value'][row, own]
        result.append(of_numbers(statistic, value, gate, time))
      elif statistic == 'count':
        level = items[item].categories.index(category)
        result.append(mean(gate[arrays['category'][row, own] == level]))
      elif statistic == 'last' and own.any():
        level = arrays['category'][row, own]
        last = (time == time.max()) & (level == level[time == time.max()].max())
        result.append(mean(gate[last]))
      else:
        result.append(1.0)
  return np.array(result)


@pytest.mark.parametrize('name', ['static', 'labs', 'vitals_categorical', 'vitals'])
def test_a_column_has_the_mean_gate_of_the_values_that_it_tells_of(name):
  batch, gated = gated_batch()
  kind = KINDS[name]
  run = jax.jit(lambda arrays: kind(arrays, ROWS))
  plain, found = run(batch[name]), run(gated[name])
  assert plain.gate is None and found.gate is not None
  assert found.gate.shape == plain.value.shape == (ROWS, kind.count)
  np.testing.assert_array_equal(found.value, plain.value)
  np.testing.assert_array_equal(found.known, plain.known)
  for row in range(ROWS):
    known = np.asarray(found.known[row])
    np.testing.assert_allclose(
      np.asarray(found.gate[row])[known],
      oracle(gated, name, row)[known],
      rtol=1e-5,
      err_msg=f'row {row}',
    )


def test_gates_of_recordings():
  batch, gated = gated_batch()
  kind, ecg = KINDS['ecg'], gated['ecg']
  found = jax.jit(lambda arrays: kind(arrays, ROWS))(ecg)
  assert found.gate is not None
  for row in range(ROWS):
    own = ecg['mask'] & (ecg['owner'] == row)
    for column, name in enumerate(names_of('ecg')):
      of_item, _, statistic = name.partition('/')
      expected = 1.0
      if statistic == 'ever':
        term = SCHEMA.modalities['ecg'].terms.index(of_item)
        expected = mean(ecg['terms_gate'][own & (ecg['terms'][:, term] > 0), term])
      if statistic == 'mean':
        place = (names_of('ecg').index(name) - 1) // 2
        measured = own & ecg['measurements_mask'][:, place]
        expected = mean(ecg['measurements_gate'][measured, place])
      if statistic != 'last':
        assert found.gate[row, column] == pytest.approx(expected, rel=1e-5), name
  del batch
