"""Weights of torch modules in ours; attention, LSTM and ResNet are in tests/models."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn

from data_pipeline.format.schema import DataError
from medm2t_jax.inference import torch_import
from medm2t_jax.models.layers.mlp import Mlp
from tests.support import fake_batch, oracle

X = np.random.default_rng(0).normal(2, 3, (7, 5)).astype(np.float32)


def test_linear_and_batch_norm_with_running_statistics():
  torch.manual_seed(0)
  twin = torch.nn.Sequential(
    torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU()
  )
  twin.train()
  for _ in range(5):
    twin(torch.tensor(X))  # moves the running statistics
  twin.eval()
  model = Mlp((4,), 0.5)
  mask = np.ones(7, bool)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X, mask, train=False))
  variables = fake_batch.variables(shapes)
  paths = sorted(variables['params'])
  blocks = torch_import.linear_batch_norm(oracle.arrays(twin), '0', '1')
  for path, block in zip(reversed(paths), blocks, strict=True):
    variables = torch_import.insert(variables, path, block)
  out = model.apply(variables, X, mask, train=False)
  oracle.assert_close(out, twin(torch.tensor(X)).detach())


def test_convolution_with_bias_and_embedding():
  twin = torch.nn.Conv1d(3, 4, 5)
  block = torch_import.conv1d(oracle.arrays(twin), '')
  x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
  out = nn.Conv(4, (5,), padding='VALID').apply(block, x)
  expected = twin(torch.tensor(x).transpose(1, 2)).transpose(1, 2)
  oracle.assert_close(out, expected.detach())
  table = torch.nn.Embedding(6, 3)
  ids = np.array([5, 0, 2])
  ours = torch_import.embedding({'e.weight': oracle.arrays(table)['weight']}, 'e')[ids]
  np.testing.assert_array_equal(ours, table(torch.tensor(ids)).detach())


def test_a_stacked_block_goes_to_its_index_and_nothing_else_changes():
  norm = {'weight': np.full(3, 2.0), 'bias': np.full(3, 5.0)}
  block = torch_import.layer_norm(norm, '')
  variables = {
    'params': {'norm': {'scale': np.ones((2, 2, 3)), 'bias': np.zeros((2, 2, 3))}}
  }
  after = torch_import.insert(variables, 'norm', block, index=(1, 0))
  expected = np.ones((2, 2, 3))
  expected[1, 0] = 2
  np.testing.assert_array_equal(after['params']['norm']['scale'], expected)
  np.testing.assert_array_equal(variables['params']['norm']['scale'], np.ones((2, 2, 3)))


def test_an_npz_file_goes_round_and_pickles_are_refused(tmp_path):
  np.savez(tmp_path / 'weights.npz', **{'a.weight': X})
  read = torch_import.read_npz(tmp_path / 'weights.npz')
  np.testing.assert_array_equal(read['a.weight'], X)
  np.savez(tmp_path / 'objects.npz', a=np.array([{}], object))
  (tmp_path / 'text.npz').write_text('x')
  for name in ('objects', 'text'):
    with pytest.raises(DataError, match=f'{name}.npz: not an npz file of plain arrays'):
      torch_import.read_npz(tmp_path / f'{name}.npz')
  with pytest.raises(DataError, match='no such file'):
    torch_import.read_npz(tmp_path / 'none.npz')


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda a: torch_import.linear(a, 'fc'), 'fc.weight: no such array'),
    (lambda a: torch_import.conv1d(a, ''), 'weight has shape .*; 3 dimensions'),
    (lambda a: torch_import.attention(a, 'mha', heads=3), 'three square projections'),
    (lambda a: torch_import.recurrent(a, 'gru', layers=1), 'not those of an LSTM'),
  ],
)
def test_wrong_arrays_are_named(call, message):
  gru = torch.nn.GRU(3, 4, bidirectional=True)
  mha = torch.nn.MultiheadAttention(8, 4)
  arrays = {'weight': X}
  for prefix, module in (('gru', gru), ('mha', mha)):
    arrays |= {f'{prefix}.{name}': array for name, array in oracle.arrays(module).items()}
  with pytest.raises(DataError, match=message):
    call(arrays)


def test_wrong_places_are_named():
  block = {'params': {'kernel': X}}
  variables = {'params': {'linear': {'kernel': np.zeros((5, 7))}}}
  with pytest.raises(DataError, match=r"no 'conv' there; it has linear"):
    torch_import.insert(variables, 'conv', block)
  with pytest.raises(
    DataError, match=r'linear/kernel is \(5, 7\) in the model, but \(7, 5\)'
  ):
    torch_import.insert(variables, 'linear', block)
  with pytest.raises(DataError, match=r"has \['kernel'\], but the weights are \['bias'"):
    torch_import.insert(variables, 'linear', {'params': {'bias': X, 'kernel': X}})
