"""Hierarchical fusion of the windows of events: segments of short windows, masks, names."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.models.events.sparse_time_series import SparseTimeSeriesEncoder
from medm2t_jax.models.hierarchical_fusion import MicroEncoder
from tests.support import fake_batch

OPTIONS = {
  'value_encoding': 'piecewise_linear',
  'pooling': 'statistics',
  'sequence': 'hierarchical',
  'event_segment_lengths': (2, 5),
  'windows': {'labs': ('hours', tuple(float(cut) for cut in range(-22, 0, 2)))},
}
ROWS, WINDOWS, SEGMENTS = 5, 12, 6
STARTS = {2: [0, 2, 4, 6, 8, 10], 5: [0, 1, 2, 4, 5, 7]}  # the last ones end at 12


@pytest.fixture(scope='module')
def encoder() -> Any:
  """The modality, its encoder, variables and events, and a compiled encoding of rows."""
  modality = fake_batch.config(**OPTIONS).modality('labs')
  model = SparseTimeSeriesEncoder(modality.config)
  events = fake_batch.batch(rows=ROWS, events=20)['labs']
  valid = np.ones(ROWS, bool)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), events, valid, train=False))
  variables = fake_batch.variables(shapes)
  variables['fitted']['time_cuts'] = np.arange(-22.0, 0, 2, np.float32)
  encode = jax.jit(lambda rows: model.apply(variables, rows, valid, train=False))
  return modality, model, variables, events, encode


def test_a_segment_is_read_by_the_micro_encoder_of_its_length(encoder):
  modality, model, variables, events, _ = encoder
  apply = lambda *args, **kwargs: model.apply(variables, *args, **kwargs)
  windows, seen = jax.jit(lambda: apply(events, method='windows'))()
  for micro in modality.config.hierarchy.micro:
    found = jax.jit(
      lambda length=micro.length: apply(
        windows, seen, np.ones(ROWS, bool), length=length, train=False,
        method=lambda module, *args, **kwargs: module.fusion.read(*args, **kwargs),
      )
    )()  # fmt: skip
    one = MicroEncoder(micro, 4, 3, 0.1, 0.3, 0.1)
    params = {
      kind: variables[kind]['fusion'][f'micro_{micro.length}']
      for kind in ('params', 'batch_stats')
    }
    read = jax.jit(
      lambda x, known, one=one, params=params: one.apply(
        params, x, known, np.ones(ROWS, bool), train=False
      )
    )
    for segment, start in enumerate(STARTS[micro.length]):
      inside = slice(start, start + micro.length)
      expected = read(np.asarray(windows)[:, inside], np.asarray(seen)[:, inside])
      np.testing.assert_allclose(found[:, segment], expected, rtol=1e-5, atol=1e-5)


def test_windows_before_the_first_event_are_not_read(encoder):
  """A segment without an event is masked; of one that begins with none, that is hidden."""
  modality, model, variables, events, encode = encoder
  _, seen = jax.jit(lambda: model.apply(variables, events, method='windows'))()
  ends = [max(a + 1, b + 4) for a, b in zip(STARTS[2], STARTS[5], strict=True)]
  encoded = encode(events)
  np.testing.assert_array_equal(encoded.token_mask, np.asarray(seen)[:, ends])
  assert encoded.tokens.shape == (ROWS, SEGMENTS, modality.config.width)
  np.testing.assert_array_equal(encoded.present, events['mask'].any(axis=1))
  # What a window without events looks like reaches nothing but the residual of itself.
  micro = MicroEncoder(modality.config.hierarchy.micro[0], 4, 3, 0.1, 0.3, 0.1)
  params = {
    kind: variables[kind]['fusion']['micro_2'] for kind in ('params', 'batch_stats')
  }
  x = np.random.default_rng(0).normal(size=(3, 2, modality.config.width))
  other = x.copy()
  other[:, 0] += 1
  known = np.array([[False, True]] * 3)
  read = jax.jit(
    lambda x: micro.apply(
      params, x.astype(np.float32), known, np.ones(3, bool), train=False
    )
  )
  np.testing.assert_array_equal(read(x), read(other))


def test_padding_and_other_rows_change_nothing(encoder):
  *_, events, encode = encoder
  expected = encode(events)
  junk = {
    key: np.where(events['mask'], array, array.dtype.type(3) if key != 'mask' else False)
    for key, array in events.items()
  }
  np.testing.assert_allclose(encode(junk).summary, expected.summary, rtol=1e-6, atol=1e-6)
  others = {key: array.copy() for key, array in events.items()}
  for array in others.values():
    array[1:] = array[1:][::-1].copy()
  np.testing.assert_allclose(
    encode(others).summary[0], expected.summary[0], rtol=1e-5, atol=1e-6
  )
  # The order of events inside a window is none.
  turned = {key: array[:, ::-1] for key, array in events.items()}
  np.testing.assert_allclose(encode(turned).summary, expected.summary, atol=1e-5)


def test_a_later_event_changes_no_earlier_segment(encoder):
  """Time is kept: the vector of a segment knows nothing of what comes after it."""
  _, _model, _variables, events, encode = encoder
  row = int(np.argmax(events['mask'].sum(axis=1)))
  last = {key: array.copy() for key, array in events.items()}
  late = last['mask'][row] & (last['time'][row] > -2)
  last['mask'][row] &= ~late
  changed = encode(last).tokens[row] != encode(events).tokens[row]
  assert late.any()
  # Only the segments that end with the grid hold the last window.
  assert not np.asarray(changed)[: SEGMENTS - 1].any()
  assert np.asarray(changed)[SEGMENTS - 1].any()


def test_without_accumulation_a_row_without_a_recent_event_is_present(encoder):
  *_, events, _ = encoder
  options = {**OPTIONS, 'pooling': 'tokens', 'accumulation': 'none'}
  options |= {'input_dropout': 0.0, 'window_dropout': 0.0}
  model = SparseTimeSeriesEncoder(fake_batch.config(**options).modality('labs').config)
  early = {**events, 'mask': events['mask'] & (events['time'] < -6)}
  valid = np.ones(ROWS, bool)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), early, valid, train=False))
  variables = fake_batch.variables(shapes)
  variables['fitted']['time_cuts'] = np.arange(-22.0, 0, 2, np.float32)
  encoded = jax.jit(lambda: model.apply(variables, early, valid, train=False))()
  assert early['mask'].any()
  np.testing.assert_array_equal(encoded.present, early['mask'].any(axis=1))
  np.testing.assert_array_equal(encoded.token_mask[:, -1], early['mask'].any(axis=1))


def test_tokens_are_named_by_their_longest_segments(encoder):
  modality, _, variables, *_ = encoder
  assert list(modality.tokens(variables['fitted'])) == [
    'up to −14 h', '−22 to −12 h', '−20 to −10 h', '−16 to −6 h', '−14 to −4 h',
    'after −10 h',
  ]  # fmt: skip


def test_windows_are_many_by_default_and_lengths_have_to_fit():
  config = fake_batch.config(sequence='hierarchical', windows={}).modality('labs').config
  assert (config.windows, config.hierarchy.segments) == (24, 12)
  with pytest.raises(
    DataError, match=r'event_segment_lengths=\(30,\).* 1 to 24, the windows of'
  ):
    fake_batch.config(sequence='hierarchical', windows={}, event_segment_lengths=(30,))
  with pytest.raises(DataError, match='repeated'):
    fake_batch.config(sequence='hierarchical', windows={}, event_segment_lengths=(3, 3))
