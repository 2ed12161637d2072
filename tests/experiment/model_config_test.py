"""Parameter counts of Table B1 by closed formulas, per task and stage; bad options."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from configs import physionet2012
from data_pipeline.format.schema import DataError
from data_pipeline.sources import physionet2012 as physionet2012_source
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.models.medm2t import MedM2T
from tests.support import fake_batch

# The schema of tests/support/fake_batch.py: 3 numeric labs and one of 2 categories; rhythms
# of 3 and 2 categories; 8 signals; 7 terms; 2 static numbers, one column of 2 levels.
LABS, RHYTHMS, TERMS, STATIC, SIGNALS = (4, 3 * 11 + 2), (2, 5), 7, 2 * 2 + 3, 8
OUTPUTS = {'cvd': 4, 'mortality': 2, 'los': 1}


def linear(n, m):
  return n * m + m


def mlp(*widths):
  """No bias before BatchNorm, which has scale and bias."""
  return sum(n * m + 2 * m for n, m in itertools.pairwise(widths))


def decoder(n, hidden, outputs):
  return mlp(n, hidden) + linear(hidden, outputs)


def lstm(e):
  """Two layers, two directions of width e / 2, one bias per gate."""
  layer = lambda n: 2 * 4 * (e // 2) * (n + e // 2 + 1)
  return layer(e) + layer(e)


def ste_of_statistics(items, values, e):
  """Five statistics of values, three rates, LayerNorm; mean and last window."""
  return 5 * (values * e) + 3 * items * e + 2 * e + mlp(2 * e, e, e)


def ste(items, values, e):
  return (values + 1) * e + (items + 1) * e + lstm(e) + mlp(e, e, e)


def attention_block(e):
  """Four projections with no bias for keys, two LayerNorms, FFN of 4x."""
  return 4 * e * e + 3 * e + 4 * e + linear(e, 4 * e) + linear(4 * e, e)


def resnet(channels, plan, kernel):
  first = plan[0][0]
  total = kernel * channels * first + 2 * first
  before = first
  for width, _ in plan:
    total += kernel * before * width + kernel * width * width + 4 * width
    total += before * width if before != width else 0
    before = width
  return total


def head(widths, e):
  """Projections, shared encoder, absent vectors, two blocks per pair."""
  k = len(widths)
  projections = sum(linear(width, e) for width in widths)
  return projections + linear(e, e) + k * e + k * (k - 1) * attention_block(e)


def micro(length, width, plan, out, signals):
  size = attention_block(signals) + linear(signals, width)
  return size + resnet(width, plan, 3) + mlp(plan[-1][0] * length // 2, out)


def trunk(columns, width, members, out):
  """Tables of the chunks, scales of the members, LayerNorm; two layers; outputs."""
  first = columns * 10 * width + members * columns + width + 2 * width
  layers = 2 * (width * width + 3 * members * width)
  return first + layers + members * (width * out + out)


def grid(paper, signals, out):
  """Encoder, its stages, width of the summary and of a token before projection."""
  if paper:
    short = micro(12, 8, ((16, 12), (32, 6)), 128, signals), decoder(128, 64, out)
    long = micro(24, 16, ((32, 24), (64, 12)), 256, signals), decoder(256, 128, out)
    macro = resnet(384, ((384, 24), (192, 12)), 3) + mlp(192 * 12, 256)
    summary, width = 256, 384
  else:
    short = micro(12, 8, ((8, 12), (16, 6)), 32, signals), decoder(32, 16, out)
    long = micro(24, 16, ((16, 24), (32, 12)), 64, signals), decoder(64, 32, out)
    macro = resnet(96, ((96, 24), (48, 12)), 3) + mlp(48 * 12, 64)
    summary, width = 64, 96
  encoder = short[0] + long[0] + macro
  counts = {
    'vitals_segments_12': sum(short),
    'vitals_segments_24': sum(long),
    'vitals': encoder + decoder(summary, summary // 2, out),
  }
  return encoder, counts, summary, width


def physionet_counts(task, size, event_encoder):
  """As `expected_counts`, for the variables of PhysioNet 2012."""
  paper, out = size == 'paper', OUTPUTS[task]
  static = {'mortality': 128, 'los': 512}[task] if paper else 64
  events, e = (512, 512) if paper else (64, 64)
  # Three numbers with a flag each; two and four levels, with a slot for none.
  static_encoder = mlp(3 * 2 + 3 + 5, static, static)
  event_encoder = event_encoder(37, 36 * 11 + 2, events)
  grid_encoder, counts, vitals, width = grid(paper, 12, out)
  summaries = (static, events, vitals)
  total = static_encoder + event_encoder + grid_encoder
  total += linear(events, events) + linear(width, vitals) + head(summaries, e)
  if task == 'mortality' and not paper:
    total += 3  # a factor for each pair
  return counts | {
    'static': static_encoder + decoder(static, static // 2, out),
    'events': event_encoder + decoder(events, events // 2, out),
    'multimodal': total + decoder(6 * e, 3 * e, out),
  }


def expected_counts(task, size):
  """Encoder plus decoder of every stage; sizes as in Table B1, 'small' or 'tiny'."""
  paper = size == 'paper'
  pick = {'cvd': 0, 'mortality': 1, 'los': 2}[task]
  out = OUTPUTS[task]
  static = (128, 128, 512)[pick] if paper else 64
  static_decoder = (64, 64, 256)[pick] if paper else 32
  labs = (128, 512, 512)[pick] if paper else 64
  rhythms = 256 if paper else 64
  features = (512, 128, 256)[pick] if paper else 64
  text, shared, e = (256, 256, 512) if paper else (64, 64, 64)
  time = (256, 256, 512)[pick] if paper else 64
  channels = 384 if paper else 64
  plan = (
    ((64, 640), (128, 320), (196, 160), (256, 40), (320, 20))
    if paper
    else ((16, 320), (32, 160), (48, 40), (64, 20))
  )
  signal_out, last = (640, 320) if paper else (128, 64)
  if size == 'tiny':
    plan, last = ((8, 20),), 8

  encoders = {
    'static': mlp(STATIC, static, static),
    'labs': ste(*LABS, labs),
  }
  counts = {
    'static': encoders['static'] + decoder(static, static_decoder, out),
    'labs': encoders['labs'] + decoder(labs, labs // 2, out),
  }
  summaries = {'static': static, 'labs': labs}
  tokens = linear(labs, labs)
  if task != 'cvd':
    encoders['vitals_categorical'] = ste(*RHYTHMS, rhythms)
    counts['vitals_categorical'] = encoders['vitals_categorical'] + decoder(
      rhythms, rhythms // 2, out
    )
    encoders['vitals'], grid_counts, vitals, width = grid(paper, SIGNALS, out)
    counts |= grid_counts
    summaries |= {'vitals_categorical': rhythms, 'vitals': vitals}
    tokens += linear(rhythms, rhythms) + linear(width, vitals)

  signal = resnet(12, plan, 5) + mlp(last * 20, signal_out)
  measured = mlp(9, features)
  report = TERMS * text + mlp(text, text, text)
  recording = signal + linear(last, signal_out) + measured + report
  recording += head((signal_out, features, text), shared) + mlp(6 * shared, 3 * shared)
  over_time = resnet(3 * shared, ((channels, 5),), 3) + mlp(channels * 5, time)
  encoders['ecg'] = recording + over_time
  summaries['ecg'] = time
  tokens += linear(3 * shared, time)
  counts['ecg_signal'] = signal + decoder(signal_out, signal_out // 2, out)
  counts['ecg_features'] = measured + decoder(features, features // 2, out)
  counts['ecg_text'] = report + decoder(text, text // 2, out)
  counts['ecg_fusion'] = recording + linear(3 * shared, out)
  counts['ecg'] = recording + over_time + decoder(time, time // 2, out)
  k = len(summaries)
  fused = e * (k + k * (k - 1) // 2)
  counts['multimodal'] = sum(encoders.values()) + tokens + head(summaries.values(), e)
  counts['multimodal'] += decoder(fused, fused // 2, out)
  return counts


# Sizes of the paper differ by task; the others are the same for all.
SIZES = [('cvd', 'paper'), ('mortality', 'paper'), ('los', 'paper'), ('mortality', 'small')]


@pytest.mark.parametrize(('task', 'size'), [*SIZES, ('cvd', 'tiny')])
def test_parameter_counts(task, size):
  config = fake_batch.config(task, size=size)
  model = MedM2T(config)
  batch = fake_batch.batch(task=task)
  expected = expected_counts(task, size)
  assert tuple(sorted(expected)) == tuple(sorted(config.stages))
  for stage in config.stages:
    shapes = jax.eval_shape(
      lambda stage=stage: model.init(jax.random.key(0), batch, stage=stage, train=False)
    )
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes['params']))
    assert count == expected[stage], stage
    assert size == 'paper' or count <= 5_000_000


# Of the schema of tests/support/fake_batch.py: nine statistics a number, two columns a
# category and one a categorical item; ten a signal; measurements twice, terms, two of the
# ECG.
COLUMNS = {
  'static': 2 + 2,
  'labs': 3 * 9 + 2 * 2 + 1,
  'vitals_categorical': 2 * 5 + 2,
  'vitals': SIGNALS * 10,
  'ecg': 9 * 2 + TERMS + 2,
}


@pytest.mark.parametrize(('task', 'size'), [('los', 'paper'), ('mortality', 'small')])
def test_parameter_counts_with_an_ensemble(task, size):
  config = fake_batch.config(task, size=size, trunk='ensemble', ensemble=16)
  batch = fake_batch.batch(task=task)
  expected = expected_counts(task, size)
  width, out = {'paper': 256, 'small': 128}[size], OUTPUTS[task]
  columns = {name: COLUMNS[name] for name in config.names}
  # What the stages of the modalities predict is part of the multimodal prediction.
  width_of = lambda pick: pick[('cvd', 'mortality', 'los').index(task)]
  widths = dict.fromkeys(columns, 64)
  if size == 'paper':
    widths = {
      'static': width_of((128, 128, 512)), 'labs': width_of((128, 512, 512)),
      'vitals_categorical': 256, 'vitals': 256, 'ecg': width_of((256, 256, 512)),
    }  # fmt: skip
  expected['multimodal'] += sum(
    trunk(count, width, 16, out) + decoder(widths[name], widths[name] // 2, out)
    for name, count in columns.items()
  )
  # Stages of modalities at one size: their trunks are of one class.
  for stage in (*(config.names if size == 'small' else ()), 'multimodal'):
    count = columns.get(stage, sum(columns.values()))
    shapes = jax.eval_shape(
      lambda stage=stage: MedM2T(config).init(
        jax.random.key(0), batch, stage=stage, train=False
      )
    )
    found = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes['params']))
    assert found == expected[stage] + trunk(count, width, 16, out), stage
    assert size == 'paper' or found <= 5_000_000


@pytest.mark.parametrize(
  ('task', 'size', 'form'),
  [
    ('mortality', 'small', 'default'),
    ('los', 'paper', 'published'),
  ],
)
def test_parameter_counts_of_physionet2012(task, size, form):
  chosen = {
    'los': task == 'los', 'paper': size == 'paper', 'published': form == 'published'
  }  # fmt: skip
  variant = ','.join(name for name, wanted in chosen.items() if wanted)
  experiment = physionet2012.get_config(variant)
  schema = physionet2012_source.schema(task)
  config = model_config(experiment.task, experiment.model, schema)
  assert experiment.task == task
  # Segments of other lengths have a recipe that no stage needs here.
  assert sorted(experiment.recipe) == sorted([*config.stages, 'vitals_segments'])
  model = MedM2T(config)
  batch = {
    'row': np.arange(2, dtype=np.int32),
    'static': {
      'numeric': np.zeros((2, 3), np.float32),
      'numeric_mask': np.ones((2, 3), bool),
      'categorical': np.zeros((2, 2), np.int32),
    },
    'events': {
      'item': np.zeros((2, 4), np.int32),
      'value': np.zeros((2, 4), np.float32),
      'category': np.full((2, 4), -1, np.int32),
      'time': np.zeros((2, 4), np.float32),
      'mask': np.ones((2, 4), bool),
    },
    'vitals': {
      'value': np.zeros((2, 96, 12), np.float32),
      'observed': np.ones((2, 96, 12), bool),
    },
  }
  encoders = {'published': ste, 'default': ste_of_statistics}
  expected = physionet_counts(task, size, encoders[form])
  if form == 'default':
    # 36 numbers and ventilation, off or on; 12 signals; three numbers and six levels.
    columns = {'static': 3 + 6, 'events': 36 * 9 + 2 * 2 + 1, 'vitals': 12 * 10}
    width, out = {'paper': 256, 'small': 128}[size], OUTPUTS[task]
    static = {'mortality': 128, 'los': 512}[task] if size == 'paper' else 64
    events, vitals = (512, 256) if size == 'paper' else (64, 64)
    expected['multimodal'] += sum(
      trunk(count, width, 16, out) + decoder(e, e // 2, out)
      for count, e in zip(columns.values(), (static, events, vitals), strict=True)
    )
    columns['multimodal'] = sum(columns.values())
    for stage, count in columns.items():
      expected[stage] += trunk(count, width, 16, OUTPUTS[task])
  for stage in config.stages:
    shapes = jax.eval_shape(
      lambda stage=stage: model.init(jax.random.key(0), batch, stage=stage, train=False)
    )
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes['params']))
    assert count == expected[stage], stage
    assert size == 'paper' or count <= 5_000_000


def test_an_unknown_variant_of_physionet2012_is_named_and_its_sizes_exclude_each_other():
  with pytest.raises(ValueError, match=r"'big'.*los.*small"):
    physionet2012.get_config('los,big')
  for sizes in ('small,paper', 'paper,smoke'):
    with pytest.raises(ValueError, match='cannot be combined'):
      physionet2012.get_config(sizes)


def test_the_multimodal_head_has_options_of_its_own():
  given = {'shared_dropout': 0.2, 'decoder_dropout': 0.4, 'modality_dropout': 0.6}
  config = fake_batch.config(**given, pairs_from_zero=True)
  fusion = config.fusion
  assert fusion.pairs_from_zero
  assert fusion.shared_dropout == 0.2 and fusion.modality_dropout == 0.6
  assert config.decoder_dropout == 0.4
  assert config.modality('ecg').config == fake_batch.config().modality('ecg').config


def test_stages_follow_the_order_of_training():
  icu = tuple(fake_batch.config('mortality').stages)
  assert icu.index('vitals_segments_24') < icu.index('vitals')
  assert icu.index('ecg_text') < icu.index('ecg_fusion') < icu.index('ecg')
  assert icu[-1] == 'multimodal'
  assert not any('vitals' in stage for stage in fake_batch.config('cvd').stages)


@pytest.mark.parametrize(
  ('option', 'value'),
  [
    ('size', 'huge'),
    ('pooling', 'max'),
    ('fusion', 'sum'),
    ('windows', {**fake_batch.OPTIONS.windows, 'labs': ('hours', (-1, -2))}),
    ('segment_lengths', (241,)),
    ('segment_lengths', (12, 12)),
    ('segments', 0),
    ('accumulation', 'max'),
    ('modality_dropout', 1.0),
    ('shared_dropout', -0.1),
    ('decoder_dropout', 1.0),
    ('ensemble', 0),
    ('trunk', 'forest'),
    ('deep', 'early'),
    ('chunk_dropout', 1.0),
    ('trunk_dropout', -0.1),
  ],
)
def test_a_bad_option_is_named(option, value):
  with pytest.raises(DataError, match=option):
    fake_batch.config(**{option: value})
