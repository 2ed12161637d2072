"""The comparison that one runs on a new device says what it finds."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import torch

from benchmarks import agreement
from benchmarks.model_steps import same_weights


@pytest.fixture(autouse=True)
def precision():
  before = jax.config.jax_default_matmul_precision, torch.backends.cudnn.allow_tf32
  yield
  jax.config.update('jax_default_matmul_precision', before[0])
  torch.backends.cudnn.allow_tf32 = before[1]


def test_agreement_names_the_part_that_differs(capsys, monkeypatch):
  arguments = ['--case=cvd/labs', '--size=tiny']
  with pytest.raises(SystemExit) as done:
    agreement.main(arguments)
  assert not done.value.code
  row = json.loads(capsys.readouterr().out.splitlines()[-1])['tiny']
  assert row.pop('rows') == 64
  assert row.pop('rows_that_differ') == []
  assert max(row.values()) < 1e-5

  def changed(case, device):
    variables, theirs = same_weights(case, device)
    decoder = variables['params']['decoders_labs']['output']['linear']
    decoder['bias'] = decoder['bias'] + np.float32([1, 0, 0, 0])
    return variables, theirs

  monkeypatch.setattr(agreement, 'same_weights', changed)
  with pytest.raises(SystemExit) as done:
    agreement.main(arguments)
  assert done.value.code
  row = json.loads(capsys.readouterr().out.splitlines()[-1])['tiny']
  assert len(row['rows_that_differ']) == 64
  assert row['labs summary'] < 1e-5 < 1e-2 < row['logits']
