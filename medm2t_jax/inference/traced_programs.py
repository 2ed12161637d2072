"""Programs of a model for any number of rows, traced once with `jax.export` and kept.

Tracing a model takes seconds, reading a traced program a fraction of a second. The name of
a kept program is a hash of the bundle, the versions and settings of JAX and our source
code, so it is only reused if all of them are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export

import data_pipeline
import medm2t_jax
from data_pipeline.format.atomic import replacing
from data_pipeline.format.schema import DataError
from data_pipeline.reading.padding import padding
from medm2t_jax.inference.trained_model import TrainedModel


def symbolic_batch(model: TrainedModel, lengths: Mapping[str, int]) -> dict[str, Any]:
  """The inputs of a program, `row` and modalities, as shapes and dtypes.

  Args:
    model: the trained model.
    lengths: of the padded modalities of a bucket.

  Returns:
    A batch of docs/design.md without a device axis; the number of rows is `b`, that of the
    entries of packed modalities `m`.
  """
  batching = dataclasses.replace(model.batching, buckets=(lengths,))
  names = model.schema.names
  batch = padding(model.schema, modalities=names, batching=batching, rows=1)
  scope = export.SymbolicScope()
  (rows,) = export.symbolic_shape('b', scope=scope)
  (entries,) = export.symbolic_shape('m', scope=scope)

  def of(lead: Any, array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((lead, *array.shape[1:]), array.dtype)

  result: dict[str, Any] = {'row': of(rows, batch['row'])}
  for name in names:
    packed = model.schema.modalities[name].layout == 'packed'
    lead = entries if packed else rows
    result[name] = {key: of(lead, array) for key, array in batch[name].items()}
  return result


def exported(
  run: Callable[..., Any], *inputs: Any, platforms: Sequence[str]
) -> export.Exported:
  """Exports a function as a program.

  Args:
    run: of JAX arrays.
    *inputs: their shapes and dtypes.
    platforms: to lower for.

  Raises:
    DataError: the function does not lower for a platform.
  """
  try:
    return export.export(jax.jit(run), platforms=platforms)(*inputs)
  except (NotImplementedError, ValueError) as error:
    raise DataError(
      f'the model cannot be exported for {", ".join(platforms)}: '
      f'{str(error).splitlines()[0]}. Predict with the bundle.'
    ) from error


def kept_or_traced(
  model: TrainedModel,
  predict: Callable[[Any, Any], Any],
  arrays: Any,
  lengths: Mapping[str, int],
) -> export.Exported:
  """The program of a bucket for any number of rows, for this process' device.

  It is kept in the folder of compiled programs (`compilation_cache.use`), if there is one.

  Args:
    model: the trained model.
    predict: from `program.with_arrays`.
    arrays: from `program.with_arrays`.
    lengths: of the padded modalities of the bucket.

  Raises:
    DataError: a kept program is damaged, or the model cannot be exported.
  """
  of_arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
  inputs = of_arrays, symbolic_batch(model, lengths)
  platforms = (export.default_export_platform(),)
  folder = jax.config.values['jax_compilation_cache_dir']
  if not folder:
    return exported(predict, *inputs, platforms=platforms)
  # Settings such as the precision, which environment variables may change.
  settings = sorted((name, str(value)) for name, value in jax.config.values.items())
  depends_on = (
    model.version, repr(model.model_config), str(inputs), platforms, jax.__version__,
    importlib.metadata.version('jaxlib'), settings, _sources(),
  )  # fmt: skip
  name = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:32]
  path = Path(folder) / 'traced' / f'{name}.jax'
  if path.exists():
    try:
      return export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:
      raise DataError(f'{path} is damaged. Remove it.') from error
  made = exported(predict, *inputs, platforms=platforms)
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as partial:
    partial.write_bytes(made.serialize())
  return made


@functools.cache
def _sources() -> str:
  """Hash of our source code, which determines the program."""
  found = hashlib.sha256()
  for package in (data_pipeline, medm2t_jax):
    (folder,) = package.__path__
    for path in sorted(Path(folder).rglob('*.py')):
      found.update(path.relative_to(folder).as_posix().encode())
      found.update(path.read_bytes())
  return found.hexdigest()
