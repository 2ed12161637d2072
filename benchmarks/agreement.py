"""Compares our logits with PyTorch's on this device, and finds where they differ.

  python -m benchmarks.agreement --case=mortality/multimodal --size=tiny,small,paper

Both sides compute in float32 without TF32, from the same weights and inputs, without
dropout. PyTorch computes on the CPU, so that one side does not depend on the device. For
each size it prints the largest difference, relative to the largest value, of the logits,
of the parts of the prediction, and of each encoder's tokens and summary in rows with the
modality; and the rows whose logits differ. The last line on stdout is one JSON object; the
exit code is 1 if logits differ by more than 1e-4.

XLA flags help to find the cause, for example XLA_FLAGS=--xla_gpu_autotune_level=0,
--xla_gpu_enable_triton_gemm=false or --xla_gpu_enable_command_buffer= (with no value).
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.in_turns import rounded, say
from benchmarks.model_case import Case
from benchmarks.model_steps import TOLERANCE, same_weights, use_precision
from benchmarks.torch_model.fusion import Encoded
from medm2t_jax.models.medm2t import MedM2T


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the benchmark; `arguments` replace those of the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--case', default='mortality/multimodal', help='TASK/STAGE')
  parser.add_argument('--size', default='tiny,small,paper')
  options = parser.parse_args(arguments)
  use_precision('float32')
  result: dict[str, Any] = {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
  task, stage = options.case.split('/')
  for size in options.size.split(','):
    result[size] = _compare(Case(task, stage, size))
    say(f'{options.case} {size}', result[size])
  print(json.dumps(result))
  worst = max(result[size]['logits'] for size in options.size.split(','))
  sys.exit(worst > TOLERANCE)


def _compare(case: Case) -> dict[str, Any]:
  variables, theirs = same_weights(case, torch.device('cpu'))
  expected: dict[str, Encoded] = {}

  def keep(name: str) -> Any:
    def hook(module: Any, inputs: Any, output: Encoded) -> None:
      del module, inputs
      expected[name] = output

    return hook

  for name, encoder in theirs.model.encoders.items():
    encoder.register_forward_hook(keep(name))
  of_torch = theirs.infer()
  model = MedM2T(case.config)
  encoders = {f'encoders_{name}' for name in expected}
  is_encoding = lambda module, method: module.name in encoders and method == '__call__'
  apply = functools.partial(
    model.apply,
    stage=case.stage,
    train=False,
    mutable=['intermediates'],
    capture_intermediates=is_encoding,
  )
  found, state = jax.jit(apply)(variables, case.batch)
  logits = np.asarray(found.logits)
  each_row = np.abs(logits - of_torch).max(axis=1)
  row = {'logits': _difference(logits, of_torch)}
  for name, of_theirs in expected.items():
    (ours,) = state['intermediates'][f'encoders_{name}']['__call__']
    for field in ('present', 'token_mask', 'tokens', 'summary'):
      one, other = np.asarray(getattr(ours, field)), getattr(of_theirs, field).numpy()
      if field in ('tokens', 'summary'):  # not used in rows without the modality
        has = of_theirs.present.numpy()
        one, other = one[has], other[has]
      row[f'{name} {field}'] = _difference(one, other)
  differ = np.flatnonzero(each_row > TOLERANCE).tolist()
  return rounded(row) | {'rows': len(logits), 'rows_that_differ': differ}


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
  """The largest difference, relative to the largest value if that is above 1."""
  found, expected = found.astype(np.float32), expected.astype(np.float32)
  scale = max(1.0, float(np.abs(expected).max(initial=0)))
  return float(np.abs(found - expected).max(initial=0)) / scale


if __name__ == '__main__':
  main()
