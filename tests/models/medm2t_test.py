"""The whole model: every stage runs, and predictions depend on nothing but the row."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.models.medm2t import MedM2T
from tests.support import fake_batch

ENSEMBLE = {'trunk': 'ensemble', 'ensemble': 3}


def make(config, batch, stage, seed=0):
  model = MedM2T(config)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), batch, stage=stage, train=False)
  )
  return model, fake_batch.variables(shapes, seed)


@pytest.fixture(scope='module')
def multimodal():
  """Batch, a compiled evaluation of the multimodal stage, and the model with its variables.

  Its parts are what is compared: the ensemble, the deep network, each modality's stage.
  """
  batch = fake_batch.batch()
  model, variables = make(fake_batch.tiny(**ENSEMBLE), batch, 'multimodal')
  # Variables are arguments: of constants, XLA computes what it can.
  apply = jax.jit(
    lambda variables, b: model.apply(variables, b, stage='multimodal', train=False)
  )
  return batch, functools.partial(apply, variables), (model, variables)


def rows_of(batch, rows, recordings):
  """The given rows, with the ECG packed in the given order of recordings."""
  order = {int(row): place for place, row in enumerate(rows)}
  ecg = {key: value[recordings] for key, value in batch['ecg'].items()}
  owners = [
    order[int(row)] if ok else 0 for row, ok in zip(ecg['owner'], ecg['mask'], strict=True)
  ]
  out = {
    key: value[rows]
    if key in ('label', 'weight', 'row')
    else {name: array[rows] for name, array in value.items()}
    for key, value in batch.items()
    if key != 'ecg'
  }
  return {**out, 'ecg': {**ecg, 'owner': np.array(owners, np.int32)}}


def test_order_of_rows_recordings_and_events_changes_no_prediction(multimodal):
  batch, run, _ = multimodal
  expected = run(batch).parts
  rng = np.random.default_rng(0)
  rows, recordings = rng.permutation(6), rng.permutation(8)
  other = rows_of(batch, rows, recordings)
  for name in ('labs', 'vitals_categorical'):
    order = rng.permutation(12)
    other[name] = {key: value[:, order] for key, value in other[name].items()}
  np.testing.assert_allclose(run(other).parts, expected[:, rows], atol=1e-5)


def test_batch_mates_change_no_prediction(multimodal):
  batch, run, _ = multimodal
  other = fake_batch.batch(seed=1)
  mixed = jax.tree.map(np.copy, other)
  for name in ('labs', 'vitals_categorical', 'vitals', 'static'):
    for key in mixed[name]:
      mixed[name][key][0] = batch[name][key][0]
  # Row 0 keeps its own recordings, the others keep theirs as far as there is room.
  pick = lambda ecg, own: np.flatnonzero(ecg['mask'] & ((ecg['owner'] == 0) == own))
  mine, theirs = pick(batch['ecg'], True), pick(other['ecg'], False)
  theirs = theirs[: 8 - len(mine)]
  for key in mixed['ecg']:
    joined = [other['ecg'][key][theirs], batch['ecg'][key][mine]]
    rest = np.zeros_like(mixed['ecg'][key])[: 8 - len(mine) - len(theirs)]
    mixed['ecg'][key] = np.concatenate([*joined, rest])
  assert len(mine)
  found, expected = run(mixed).parts, run(batch).parts
  np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=1e-5)
  for part, its_part in zip(found[:, 3], expected[:, 3], strict=True):
    assert not np.allclose(part, its_part, atol=1e-3)


def test_padding_and_batch_size_change_no_prediction(multimodal):
  batch, run, _ = multimodal
  wide = dict(batch)
  for name in ('labs', 'vitals_categorical'):
    wide[name] = {
      key: np.pad(value, ((0, 3), (0, 5))) for key, value in batch[name].items()
    }
  pad = lambda x, n: np.pad(x, [(0, n), *[(0, 0)] * (x.ndim - 1)])
  wide['ecg'] = {key: pad(value, 4) for key, value in batch['ecg'].items()}
  for name in ('vitals', 'static'):
    wide[name] = {key: pad(value, 3) for key, value in batch[name].items()}
  wide['static']['categorical'][6:] = -1
  for key in ('label', 'weight', 'row'):
    wide[key] = pad(batch[key], 3)
  out, expected = run(wide), run(batch)
  np.testing.assert_allclose(out.logits[:6], expected.logits, atol=1e-5)
  np.testing.assert_allclose(out.parts[:, :6], expected.parts, atol=1e-5)


def masked(batch, absent):
  batch = jax.tree.map(np.copy, batch)
  for name in absent:
    if name == 'static':
      batch['static']['numeric_mask'][:] = False
      batch['static']['categorical'][:] = -1
    else:
      batch[name]['observed' if name == 'vitals' else 'mask'][:] = False
  return batch


def test_any_subset_of_modalities_is_finite_and_matters(multimodal):
  batch, run, _ = multimodal
  names = ('static', 'labs', 'vitals_categorical', 'vitals', 'ecg')
  everything = run(batch).parts
  for bits in range(1, 32):
    absent = [name for i, name in enumerate(names) if bits >> i & 1]
    parts = run(masked(batch, absent)).parts
    assert np.isfinite(parts).all()
    for place in (0, 1):  # the ensemble and the deep network read all modalities
      assert not np.allclose(parts[place, 0], everything[place, 0], atol=1e-4), absent


def test_a_batch_without_any_recording_predicts_as_one_in_which_others_have_some(
  multimodal,
):
  batch, run, _ = multimodal
  others = jax.tree.map(np.copy, batch)
  others['ecg']['mask'] &= others['ecg']['owner'] != 0
  assert others['ecg']['mask'].any() and not others['ecg']['mask'].all()
  found, expected = run(masked(batch, ('ecg',))).parts, run(others).parts
  np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=1e-5)


def test_dropping_equals_dropping_by_mask(multimodal):
  batch, run, (model, variables) = multimodal
  absent = ('labs', 'ecg', 'static', 'vitals')  # one of every kind
  of = model.config.modality
  found = run({**batch, **{name: of(name).without(batch[name]) for name in absent}})
  expected = run(masked(batch, absent))
  np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6)
  np.testing.assert_allclose(found.parts, expected.parts, atol=1e-5)
  # The argument is the same; a stage of one modality compiles fast.
  apply = jax.jit(
    lambda variables, b, drop: model.apply(
      variables, b, stage='static', train=False, drop=drop
    ),
    static_argnums=2,
  )
  by_argument = apply(variables, batch, ('static',))
  expected = apply(variables, masked(batch, ('static',)), ())
  np.testing.assert_allclose(by_argument.logits, expected.logits, atol=1e-6)


def step(model, variables, batch, stage):
  """Loss, predictions, new statistics and gradients of one training step."""

  def loss(params, variables, batch):
    out, new = model.apply(
      {**variables, 'params': params},
      batch,
      stage=stage,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(0, impl='rbg')},
    )
    value = jnp.sum(jnp.where(out.mask[None, :, None], out.heads**2, 0.0))
    return value, (out, new)

  # All are arguments: of constants, XLA computes what it can.
  gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
  return gradient(variables['params'], variables, batch)


@pytest.mark.parametrize(
  ('stage', 'trunk'),
  [
    # One of each kind: rows, segments and recordings, with a decoder and with a trunk,
    # which has the encoders of the other modalities.
    *((stage, 'decoder') for stage in ('vitals_segments_12', 'vitals', 'ecg_text')),
    ('multimodal', 'ensemble'),
  ],
)
def test_every_stage_trains(stage, trunk):
  batch = fake_batch.batch(rows=8, events=8, recordings=8)
  config = fake_batch.tiny(trunk=trunk, ensemble=3)
  if trunk == 'ensemble':  # gradients of all encoders: tests/benchmarks/models_test.py
    options = dataclasses.replace(fake_batch.OPTIONS, trunk=trunk, ensemble=3)
    schema = fake_batch.schema().only(('static', 'labs'))
    config = model_config('mortality', options, schema)
  model, variables = make(config, batch, stage)
  (_, (out, new)), gradients = step(model, variables, batch, stage)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, new, gradients)))
  recordings = stage.startswith('ecg_')
  count = 8 * 24 if 'segments' in stage else 8
  assert out.logits.shape == (count, config.outputs)
  assert out.owner.dtype == jnp.int32
  assert out.owner.shape == out.mask.shape == (count,)
  if recordings:
    np.testing.assert_array_equal(out.owner, batch['ecg']['owner'])
  # Every parameter trains, but those that the stages of the modalities have trained.
  dead = {
    path[0].key
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    if not np.any(leaf) and 'absent' not in str(path)
  }
  assert dead == set(model.untrained(stage))


def test_a_stage_shares_its_paths_with_the_multimodal_model():
  batch = fake_batch.batch()
  shapes = {}
  for stage in fake_batch.tiny().stages:
    model = MedM2T(fake_batch.tiny())
    tree = jax.eval_shape(
      lambda stage=stage, model=model: model.init(
        jax.random.key(0), batch, stage=stage, train=False
      )
    )
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    shapes[stage] = {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
  full = shapes['multimodal']
  for stage, leaves in shapes.items():
    own = {path for path in leaves if 'decoders_' not in path}
    assert own <= set(full), stage
    assert all(full[path] == leaves[path] for path in own)


# Each has a test of its own with its module; here they meet in one model.
OPTIONS = [
  {
    'value_encoding': 'piecewise_linear',
    'sequence': 'mean_last',
    'accumulation': 'none',
    'attend_over': 'summary',
    'grid_levels': 'micro',
    'fusion': 'mul',
    'dtype': 'bfloat16',
  },
  {
    'fusion': 'concat',
    'shared_encoder': 'after',
    'segments': 9,
    'segment_lengths': (7,),
  },
]


@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: '-'.join(options))
def test_options_give_other_finite_predictions(options, multimodal):
  batch, run, _ = multimodal
  # The statistics of flax's LayerNorm are float32 beside bfloat16.
  promotion = 'standard' if 'dtype' in options else 'strict'
  with jax.numpy_dtype_promotion(promotion):
    model, variables = make(fake_batch.tiny(**options), batch, 'multimodal')
    apply = lambda variables, b: model.apply(variables, b, stage='multimodal', train=False)
    out = jax.jit(apply)(variables, batch)
  assert out.logits.dtype == jnp.float32
  assert np.isfinite(out.logits).all()
  assert not np.allclose(out.logits[0], run(batch).parts[1, 0], atol=1e-6)


def test_attention_weights_are_returned():
  batch = fake_batch.batch()
  model, variables = make(
    fake_batch.tiny('cvd'), fake_batch.batch(task='cvd'), 'multimodal'
  )
  _, state = jax.eval_shape(
    lambda b: model.apply(
      variables, b, stage='multimodal', train=False, mutable=['intermediates']
    ),
    {**fake_batch.batch(task='cvd'), 'ecg': batch['ecg']},
  )
  block = state['intermediates']['fusion']['bimodal']['block_0']
  # (target, querying modality, rows, heads, one query, tokens)
  assert block['attention']['attention'][0].shape == (3, 2, 6, 8, 1, 5)


def test_unknown_stage_and_modality_are_named():
  batch = fake_batch.batch()
  model = MedM2T(fake_batch.tiny())
  with pytest.raises(ValueError, match='unknown stage'):
    model.init(jax.random.key(0), batch, stage='vitals_segments_99', train=False)
  with pytest.raises(ValueError, match='cannot drop'):
    model.init(jax.random.key(0), batch, stage='labs', train=False, drop=('lab',))


def test_the_stage_of_a_modality_is_a_part_of_the_multimodal_prediction(multimodal):
  """It says there what it says alone; where its modality is absent, the prior."""
  batch, compiled, (model, variables) = multimodal
  run = lambda stage: jax.jit(
    lambda variables, b: model.apply(variables, b, stage=stage, train=False)
  )(variables, batch)
  whole = compiled(batch)
  names = model.part_names('multimodal')
  assert names == ('ensemble', 'deep', *model.config.names)
  assert whole.parts.shape == (len(names), 6, 2)
  for name in ('labs', 'static'):
    alone, part = run(name), whole.parts[names.index(name)]
    present = np.asarray(alone.mask)
    if name == 'labs':
      assert not present.all()
    np.testing.assert_allclose(part[present], alone.logits[present], atol=1e-5)
    prior = variables['fitted'][f'additions_{name}']['offset']
    np.testing.assert_array_equal(part[~present], np.tile(prior, ((~present).sum(), 1)))
