"""A trained model as one pure function of a batch, to be compiled or exported.

Predictions of data sets go through `TrainedModel.predict`, on all devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medm2t_jax.inference import blended
from medm2t_jax.inference.trained_model import STAGE, Batch, TrainedModel
from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.link import predicted
from medm2t_jax.models.medm2t import MedM2T

Program = Callable[[Batch], Float[Array, 'b ...']]


def program(model: TrainedModel) -> Program:
  """The whole model as a function: the mean of its members, each in its blend.

  Args:
    model: the trained model.

  Returns:
    A function of a batch without a device axis (docs/design.md, "The batch"), which reads
    `row` and the modalities. It returns probabilities (b c) or numbers (b), float32, and
    may be transformed by JAX.
  """
  predict, arrays = with_arrays(model)
  return lambda batch: predict(arrays, batch)


def with_arrays(
  model: TrainedModel,
) -> tuple[Callable[[Any, Batch], Float[Array, 'b ...']], Any]:
  """The program as a function of the model's arrays and a batch, and these arrays.

  Tracing takes half the time, because the model's constants are arguments.

  Members are networks of the same shapes: one is traced for all, and they run one after the
  other. Their trees have different shapes, so each is traced.
  """
  config = model.model_config
  network = MedM2T(config)

  def logits(variables: Any, batch: Batch) -> Float[Array, 'b c']:
    predictions = network.apply(variables, batch, stage=STAGE, train=False)
    assert isinstance(predictions, Predictions)  # no collection is mutable here
    return predictions.logits

  def predict(arrays: Any, batch: Batch) -> Float[Array, 'b ...']:
    variables, blends = arrays
    batch = {name: batch[name] for name in ('row', *config.names)}
    outputs = jax.lax.map(lambda of_member: logits(of_member, batch), variables)
    if blends:
      table = blended.table_of_device(config.columns, batch)
      mixed = zip(blends, outputs, strict=True)
      outputs = [blended.outputs(one, table, each, config.link) for one, each in mixed]
    return jnp.mean(jnp.stack([predicted(each, config.link) for each in outputs]), axis=0)

  return predict, jax.device_put(stacked(model))


def stacked(model: TrainedModel) -> tuple[Any, list[Mapping[str, Any]]]:
  """Variables of all members, stacked along a leading axis, and their blends.

  Either all members have a blend or none has, because they were trained in the same way.
  """
  variables = jax.tree.map(
    lambda *each: np.stack(each), *(dict(member.variables) for member in model.members)
  )
  return variables, [member.blend for member in model.members if member.blend is not None]
