"""What sections share is predicted once, in one pass, and only where one needs it."""

from __future__ import annotations

import numpy as np

from medm2t_jax.evaluation import evaluate
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.inference import blend
from tests.evaluation.stand_in import StandIn, predictor

WITHOUT = {'all': (), 'without labs': ('labs',)}


def test_network_and_blend_come_from_one_forward_pass(dataset):
  passes = []

  def network(batch):
    passes.append('network')
    return predictor(batch)

  def both(batch):
    alone = network(batch)
    return alone, 2 * alone

  blended = lambda batch: both(batch)[1]
  fold = StandIn(dataset)
  rows, found = evaluate.predict(fold, blended, 'test', WITHOUT, both)
  assert list(found) == [blend.ALONE, 'all', 'without labs']
  steps = len(fold.plan('test', dataset.schema.names, 8))
  assert len(passes) == 2 * steps  # undamaged and without labs
  for name, each in (('model', predictor), ('blend', blended)):
    _, expected = evaluate.predict(fold, each, 'test', WITHOUT)
    if name == 'blend':
      np.testing.assert_array_equal(found['without labs'], expected['without labs'])
    key = 'all' if name == 'blend' else blend.ALONE
    np.testing.assert_array_equal(found[key], expected['all'])
  np.testing.assert_array_equal(rows, np.sort(dataset.rows(0, 'test')))


def test_the_network_alone_is_predicted_for_who_needs_it(dataset, monkeypatch):
  fold = StandIn(dataset)
  fold.final, fold.model = fold, None
  monkeypatch.setattr(evaluate, 'restore_best', lambda *_: ({}, None))
  monkeypatch.setattr(evaluate.steps, 'predictor', lambda *_: predictor)
  twice = lambda *_: lambda batch: (predictor(batch), 2 * predictor(batch))
  monkeypatch.setattr(evaluate.blend, 'with_alone', twice)
  monkeypatch.setattr(evaluate.blend, 'predictor', lambda *_: predictor)
  asked = evaluate._test(fold, {'a': Needs(), 'b': Needs(alone=True)})
  assert set(asked.predictions) == {blend.ALONE, 'all modalities'}
  not_asked = evaluate._test(fold, {'a': Needs(without={'no labs': ('labs',)})})
  assert set(not_asked.predictions) == {'all modalities', 'without labs'}
