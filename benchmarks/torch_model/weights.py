"""Copies weights of `TorchMedM2T` to our variables (`inference.torch_import`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.torch_model.blocks import CrossAttention, Decoder, ResNet1d
from benchmarks.torch_model.ecg import EcgEncoder
from benchmarks.torch_model.encoders import GridEncoder, StaticEncoder
from benchmarks.torch_model.events import EventEncoder
from benchmarks.torch_model.fusion import MultimodalFusion
from benchmarks.torch_model.medm2t import Head, TorchMedM2T
from benchmarks.torch_model.trunk import EnsembleTrunk
from medm2t_jax.inference import torch_import
from medm2t_jax.inference.torch_import import Arrays, Block

# Our path, the corresponding weights, and their index if blocks are stacked.
Placed = Iterator[tuple[str, Block, tuple[int, ...]]]


def to_variables(
  model: TorchMedM2T, variables: dict[str, Any], arrays: Arrays | None = None
) -> dict[str, Any]:
  """A copy of our variables of the stage with the weights of `model`.

  Args:
    model: of the stage.
    variables: arrays of the right shapes; `fitted` is unchanged.
    arrays: by the names of the model's state, to use instead of it (for example gradients).
  """
  if arrays is None:
    arrays = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
  variables = jax.tree.map(lambda leaf: leaf, variables)
  params = variables['params']
  for path, block, index in _blocks(model, arrays):
    if path.startswith('table:'):
      path = path.removeprefix('table:')
      if _exists(params, path):
        *parents, name = path.split('/')
        node = params
        for part in parents:
          node = node[part]
        assert node[name].shape == block['params']['table'].shape
        node[name] = block['params']['table']
    elif _exists(params, path):
      variables = torch_import.insert(variables, path, block, index=index)
      params = variables['params']
  return variables


def _exists(tree: Any, path: str) -> bool:
  """Whether our stage has this path; it has no parameters that it does not use."""
  for part in path.split('/'):
    if part not in tree:
      return False
    tree = tree[part]
  return True


def _blocks(model: TorchMedM2T, arrays: Arrays) -> Placed:
  for name, encoder in model.encoders.items():
    prefix, path = f'encoders.{name}', f'encoders_{name}'
    if isinstance(encoder, StaticEncoder):
      yield from _mlp(arrays, f'{prefix}.mlp', f'{path}/mlp')
    elif isinstance(encoder, EventEncoder):
      yield from _events(arrays, prefix, path)
    elif isinstance(encoder, GridEncoder):
      yield from _grid(encoder, arrays, prefix, path)
    elif isinstance(encoder, EcgEncoder):
      yield from _ecg(encoder, arrays, prefix, path)
  if model.stage == 'multimodal':
    yield from _fusion(model.fusion, arrays, 'fusion', 'fusion')
  yield from _head(model.head, arrays, 'head', model.stage)
  for name, single in model.singles.items():
    assert isinstance(single, Head)
    yield from _head(single, arrays, f'singles.{name}', name)


def _head(head: Head, arrays: Arrays, prefix: str, stage: str) -> Placed:
  decoder, path = f'{prefix}.decoder', f'decoders_{stage}'
  if isinstance(head.decoder, Decoder):
    yield from _mlp(arrays, f'{decoder}.hidden', f'{path}/hidden')
    yield f'{path}/output/linear', torch_import.linear(arrays, f'{decoder}.output'), ()
  else:
    yield f'{path}/linear', torch_import.linear(arrays, decoder), ()
  if head.trunk is not None:
    yield from _trunk(head.trunk, arrays, f'{prefix}.trunk', f'trunks_{stage}')


def _mlp(arrays: Arrays, prefix: str, path: str) -> Placed:
  for layer in itertools.count():
    linear, norm = f'{prefix}.{4 * layer}', f'{prefix}.{4 * layer + 1}'
    if f'{linear}.weight' not in arrays:
      return
    dense, batch_norm = torch_import.linear_batch_norm(arrays, linear, norm)
    yield f'{path}/Dense_{layer}', dense, ()
    yield f'{path}/BatchNorm_{layer}', batch_norm, ()


def _table(path: str, table: np.ndarray) -> Placed:
  yield f'table:{path}', {'params': {'table': table}}, ()


def _events(arrays: Arrays, prefix: str, path: str) -> Placed:
  of_items = f'{path}/item_statistics'
  for table in ('statistic_table', 'rate_table'):
    yield from _table(f'{of_items}/{table}', np.array(arrays[f'{prefix}.{table}']))
  yield f'{of_items}/norm', torch_import.layer_norm(arrays, f'{prefix}.norm'), ()
  yield from _mlp(arrays, f'{prefix}.mlp', f'{path}/mlp')
  token = torch_import.linear(arrays, f'{prefix}.token_linear')
  yield f'{path}/token_linear', token, ()


def _trunk(trunk: EnsembleTrunk, arrays: Arrays, prefix: str, path: str) -> Placed:
  names = ['chunk_table', 'chunk_bias', 'head', 'head_bias']
  names += ['chunk_scale'] if trunk.chunk_scale is not None else []
  for name in names:
    yield from _table(f'{path}/{name}', np.array(arrays[f'{prefix}.{name}']))
  yield f'{path}/norm', torch_import.layer_norm(arrays, f'{prefix}.norm'), ()
  for index in range(len(trunk.layers)):
    layer = f'{prefix}.layers.{index}'
    yield f'{path}/hidden_{index}', torch_import.linear(arrays, f'{layer}.linear'), ()
    for name in ('scale_in', 'scale_out', 'bias'):
      yield from _table(f'{path}/{name}_{index}', np.array(arrays[f'{layer}.{name}']))


def _grid(encoder: GridEncoder, arrays: Arrays, prefix: str, path: str) -> Placed:
  for micro in encoder.config.micro:
    torch_micro, ours = f'{prefix}.micro.{micro.length}', f'{path}/micro_{micro.length}'
    heads = encoder.config.heads
    yield from _attention(arrays, f'{torch_micro}.attention', f'{ours}/attention', heads)
    yield f'{ours}/linear', torch_import.linear(arrays, f'{torch_micro}.linear'), ()
    resnet = encoder.micro[str(micro.length)].resnet
    assert isinstance(resnet, ResNet1d)
    yield from _resnet(resnet, arrays, f'{torch_micro}.resnet', f'{ours}/resnet')
    yield from _mlp(arrays, f'{torch_micro}.mlp', f'{ours}/mlp')
  yield from _resnet(encoder.macro, arrays, f'{prefix}.macro', f'{path}/macro')
  yield from _mlp(arrays, f'{prefix}.mlp', f'{path}/mlp')
  token = torch_import.linear(arrays, f'{prefix}.token_linear')
  yield f'{path}/token_linear', token, ()


def _ecg(encoder: EcgEncoder, arrays: Arrays, prefix: str, path: str) -> Placed:
  signal = f'{path}/signal_view'
  yield from _resnet(
    encoder.signal_resnet, arrays, f'{prefix}.signal_resnet', f'{signal}/resnet'
  )
  token = torch_import.linear(arrays, f'{prefix}.signal_token')
  yield f'{signal}/token_linear', token, ()
  yield from _table(
    f'{path}/text_view/term_table', np.array(arrays[f'{prefix}.term_table'])
  )
  yield from _resnet(
    encoder.time_resnet, arrays, f'{prefix}.time_resnet', f'{path}/time/resnet'
  )
  token = torch_import.linear(arrays, f'{prefix}.time_token')
  yield f'{path}/time/token_linear', token, ()
  for torch_name, ours in (
    ('signal_mlp', 'signal_view/mlp'),
    ('features_mlp', 'features_view/mlp'),
    ('text_mlp', 'text_view/mlp'),
    ('recording_mlp', 'recording_mlp'),
    ('time_mlp', 'time/mlp'),
  ):
    yield from _mlp(arrays, f'{prefix}.{torch_name}', f'{path}/{ours}')
  yield from _fusion(encoder.fusion, arrays, f'{prefix}.fusion', f'{path}/fusion')


def _resnet(resnet: ResNet1d, arrays: Arrays, prefix: str, path: str) -> Placed:
  parts = {'stem': 'stem'}
  for unit in range(len(resnet.units)):
    parts |= {f'units.{unit}.{name}': f'unit_{unit}_{name}' for name in ('first', 'second')}
    parts[f'units.{unit}.skip'] = f'unit_{unit}_skip'
  for torch_name, ours in parts.items():
    convolution = f'{prefix}.{torch_name}'
    if f'{convolution}.weight' in arrays:
      yield f'{path}/{ours}', torch_import.conv1d(arrays, convolution), ()
    if f'{convolution}_norm.weight' in arrays:
      norm = torch_import.batch_norm(arrays, f'{convolution}_norm')
      yield f'{path}/{ours}_norm', norm, ()


def _attention(
  arrays: Arrays, prefix: str, path: str, heads: int, index: tuple[int, ...] = ()
) -> Placed:
  attention = torch_import.attention(arrays, f'{prefix}.attention', heads=heads)
  yield f'{path}/attention', attention, index
  for norm in ('attention_norm', 'ffn_norm'):
    yield f'{path}/{norm}', torch_import.layer_norm(arrays, f'{prefix}.{norm}'), index
  for linear in ('ffn_in', 'ffn_out'):
    yield f'{path}/{linear}', torch_import.linear(arrays, f'{prefix}.{linear}'), index


def _fusion(fusion: MultimodalFusion, arrays: Arrays, prefix: str, path: str) -> Placed:
  names = list(fusion.project)
  for name in names:
    linear = torch_import.linear(arrays, f'{prefix}.project.{name}')
    yield f'{path}/project_{name}', linear, ()
  yield f'{path}/shared', torch_import.linear(arrays, f'{prefix}.shared'), ()
  yield from _table(f'{path}/absent', np.array(arrays[f'{prefix}.absent']))
  if fusion.pair_factor is not None:
    yield from _table(f'{path}/pair_factor', np.array(arrays[f'{prefix}.pair_factor']))
  for key, block in fusion.blocks.items():
    assert isinstance(block, CrossAttention)
    query, target = key.split('_to_')
    others = [name for name in names if name != target]
    index = (names.index(target), others.index(query))
    yield from _attention(
      arrays,
      f'{prefix}.blocks.{key}',
      f'{path}/bimodal/block_0',
      block.attention.num_heads,
      index,
    )
