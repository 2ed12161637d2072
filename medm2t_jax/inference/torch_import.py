"""Imports PyTorch weights into our parameters, block by block.

Arrays have the names that `torch.nn` modules give their parameters: a mapping, for example
`{name: tensor.numpy() for name, tensor in module.state_dict().items()}`, or an npz file of
them. Nothing is unpickled. Each function returns a `Block`, the variables of one of our
modules, which `insert` puts at a path of a model's variables:

  arrays = torch_import.read_npz('labs.npz')
  block = torch_import.recurrent(arrays, 'lstm', layers=2)
  variables = torch_import.insert(variables, 'encoders_labs/recurrent', block)

Letters: e inputs, f outputs, k kernel steps, h heads, d depth of a head, g gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline.format.schema import DataError
from medm2t_jax.models.layers.recurrent import GATES

Arrays = Mapping[str, np.ndarray]
Block = dict[str, dict[str, Any]]


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
  """Reads named arrays from an npz file.

  Raises:
    DataError: the file does not exist, is not an npz file, or holds Python objects.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except FileNotFoundError as error:
    raise DataError(f'{path}: no such file. Save the arrays with numpy.savez.') from error
  except (ValueError, OSError, AttributeError, EOFError) as error:
    raise DataError(
      f'{path}: not an npz file of plain arrays. Save them with numpy.savez.'
    ) from error


def linear(arrays: Arrays, prefix: str) -> Block:
  """`torch.nn.Linear`: weight (f e), bias (f) or none -> `nn.Dense`."""
  params = {'kernel': _take(arrays, prefix, 'weight', 2).T}
  if _name(prefix, 'bias') in arrays:
    params['bias'] = _take(arrays, prefix, 'bias', 1)
  return {'params': params}


def conv1d(arrays: Arrays, prefix: str) -> Block:
  """`torch.nn.Conv1d`, groups 1: weight (f e k), bias (f) or none -> `nn.Conv`."""
  params = {'kernel': _take(arrays, prefix, 'weight', 3).transpose(2, 1, 0)}
  if _name(prefix, 'bias') in arrays:
    params['bias'] = _take(arrays, prefix, 'bias', 1)
  return {'params': params}


def batch_norm(arrays: Arrays, prefix: str) -> Block:
  """`torch.nn.BatchNorm1d` with running statistics -> `BatchNorm`."""
  return {
    'params': {
      'scale': _take(arrays, prefix, 'weight', 1),
      'bias': _take(arrays, prefix, 'bias', 1),
    },
    'batch_stats': {
      'mean': _take(arrays, prefix, 'running_mean', 1),
      'var': _take(arrays, prefix, 'running_var', 1),
    },
  }


def linear_batch_norm(arrays: Arrays, linear_prefix: str, norm_prefix: str) -> list[Block]:
  """`Linear` followed by `BatchNorm1d` -> a `nn.Dense` without bias and a `BatchNorm`.

  Ours have no bias before BatchNorm, where a bias only shifts the running mean; so the bias
  is subtracted from the running mean.
  """
  dense, norm = linear(arrays, linear_prefix), batch_norm(arrays, norm_prefix)
  bias = dense['params'].pop('bias', None)
  if bias is not None:
    norm['batch_stats']['mean'] = norm['batch_stats']['mean'] - bias
  return [dense, norm]


def layer_norm(arrays: Arrays, prefix: str) -> Block:
  """`torch.nn.LayerNorm` over the last axis -> `nn.LayerNorm`."""
  return {
    'params': {
      'scale': _take(arrays, prefix, 'weight', 1),
      'bias': _take(arrays, prefix, 'bias', 1),
    }
  }


def embedding(arrays: Arrays, prefix: str) -> np.ndarray:
  """`torch.nn.Embedding`: weight (ids e), unchanged, for example for `value_table`."""
  return _take(arrays, prefix, 'weight', 2)


def recurrent(arrays: Arrays, prefix: str, *, layers: int = 2) -> Block:
  """A bidirectional `torch.nn.LSTM` -> `BidirectionalRecurrent`.

  Torch has two biases per gate, of which only the sum matters.

  Args:
    arrays: with `weight_ih_l0` (g f, e), `weight_hh_l0` (g f, f), `bias_ih_l0`,
      `bias_hh_l0`, the same with `_reverse`, and so on for every layer.
    prefix: the part before those names, without a dot.
    layers: number of layers.
  """
  params = {}
  for layer in range(layers):
    directions = []
    for suffix in ('', '_reverse'):
      take = lambda kind, dims, end=f'l{layer}{suffix}': _take(
        arrays, prefix, f'{kind}_{end}', dims
      )
      input_bias, hidden_bias = take('bias_ih', 1), take('bias_hh', 1)
      weights = {
        'input_kernel': take('weight_ih', 2).T,
        'recurrent_kernel': take('weight_hh', 2).T,
        'bias': input_bias + hidden_bias,
      }
      features = len(weights['recurrent_kernel'])
      if len(input_bias) != GATES * features:
        raise DataError(
          f'{prefix}: {len(input_bias)} gate biases for width {features} are not those '
          'of an LSTM.'
        )
      directions.append(weights)
    forward, backward = directions
    params[f'layer_{layer}'] = {
      name: np.stack([forward[name], backward[name]]) for name in forward
    }
  return {'params': params}


def attention(arrays: Arrays, prefix: str, *, heads: int) -> Block:
  """`torch.nn.MultiheadAttention` with stacked projections -> `MultiHeadAttention`.

  The bias of the keys is left out, because the softmax ignores it.

  Args:
    arrays: with `in_proj_weight` (3e e), `in_proj_bias` (3e), `out_proj.weight`,
      `out_proj.bias`.
    prefix: the part before those names, without a dot.
    heads: number of heads.
  """
  weight = _take(arrays, prefix, 'in_proj_weight', 2)
  width = weight.shape[1]
  if weight.shape[0] != 3 * width or width % heads:
    raise DataError(
      f'{_name(prefix, "in_proj_weight")} is {weight.shape}: not three square '
      f'projections whose width {heads} heads divide'
    )
  query, key, value = (part.T.reshape(width, heads, -1) for part in np.split(weight, 3))
  query_bias, _, value_bias = np.split(_take(arrays, prefix, 'in_proj_bias', 1), 3)
  return {
    'params': {
      'query_kernel': query,
      'key_kernel': key.transpose(1, 2, 0),
      'value_kernel': value.transpose(1, 0, 2),
      'query_bias': query_bias.reshape(heads, -1),
      'value_bias': value_bias.reshape(heads, -1),
      'out_kernel': _take(arrays, prefix, 'out_proj.weight', 2).T.reshape(heads, -1, width),
      'out_bias': _take(arrays, prefix, 'out_proj.bias', 1),
    }
  }


def insert(
  variables: Mapping[str, Any], path: str, block: Block, *, index: tuple[int, ...] = ()
) -> dict[str, Any]:
  """A copy of `variables` with a block's arrays at a path.

  Args:
    variables: of a model: collections of nested dicts of arrays.
    path: of our module, for example 'encoders_labs/recurrent'.
    block: from one of the functions above.
    index: leading indices if our parameters are stacked, for example (target, querying
      modality) in 'fusion/bimodal/block_0/attention'.

  Raises:
    DataError: there is no such module, or an array has another shape.
  """
  result = jax.tree.map(lambda leaf: leaf, dict(variables))
  for collection, tree in block.items():
    node = result.get(collection, {})
    for part in path.split('/'):
      if part not in node:
        raise DataError(
          f'{collection}/{path}: the model has no {part!r} there; it has '
          f'{", ".join(sorted(node))}'
        )
      node = node[part]
    _assign(node, tree, f'{collection}/{path}', index)
  return result


def _assign(node: dict[str, Any], tree: Mapping[str, Any], where: str, index) -> None:
  if node.keys() != tree.keys():
    raise DataError(f'{where} has {sorted(node)}, but the weights are {sorted(tree)}')
  for name, value in tree.items():
    place = f'{where}/{name}'
    if isinstance(value, Mapping):
      _assign(node[name], value, place, index)
      continue
    array = np.array(node[name])
    if array[index].shape != value.shape:
      raise DataError(
        f'{place} is {array[index].shape} in the model, but {value.shape} in the weights'
      )
    array[index] = value
    node[name] = array


def _name(prefix: str, name: str) -> str:
  return f'{prefix}.{name}' if prefix else name


def _take(arrays: Arrays, prefix: str, name: str, dims: int) -> np.ndarray:
  full = _name(prefix, name)
  if full not in arrays:
    near = sorted(key for key in arrays if key.startswith(prefix))[:20]
    raise DataError(f'{full}: no such array; under {prefix!r} there are {near}')
  array = np.array(arrays[full], np.float32)
  if array.ndim != dims:
    raise DataError(f'{full} has shape {array.shape}; {dims} dimensions are expected')
  return array
