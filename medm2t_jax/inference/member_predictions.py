"""A trained model's prediction, and what each member of its ensembles makes of a sample.

A bundle is an ensemble of networks, and the trunk of each is an ensemble of members that
share most of their weights. Where members disagree, the model has seen too little that is
alike. Their spread is no confidence interval: what all of them have in common (the data
that they were trained on, the other parts of the model) does not show in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medm2t_jax.inference import blended
from medm2t_jax.inference.program import stacked
from medm2t_jax.inference.trained_model import STAGE, Batch, TrainedModel
from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.link import normalized, predicted
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.models.trunk.late_addition import LateAddition


class MemberPredictions(NamedTuple):
  """Probabilities (c) or numbers () of every row.

  Attributes:
    prediction: of the model, as of `program`.
    members: of the model with one member in the place of its network's ensemble, and with
      one network in the place of all: the other parts of a network, and the simple models
      of its blend, are in all of them.
  """

  prediction: Float[Array, 'b ...']
  members: Float[Array, 'k b ...']


def members_of(model: TrainedModel) -> int:
  """How many members there are: k of `MemberPredictions`."""
  return len(model.members) * MedM2T(model.model_config).members(STAGE)


def member_predictions(model: TrainedModel) -> Callable[[Batch], MemberPredictions]:
  """Returns the function of a batch without a device axis, as `program` does."""
  config = model.model_config
  network = MedM2T(config)
  count, parts = network.members(STAGE), len(network.part_names(STAGE))
  addition = LateAddition(config.outputs, parts, config.link)
  variables, blends = jax.device_put(stacked(model))

  def outputs(variables: Any, batch: Batch) -> Float[Array, 'm b c']:
    """Of the network, then of each member in the place of its ensemble."""
    found = network.apply(variables, batch, stage=STAGE, train=False)
    assert isinstance(found, Predictions)  # nothing is mutable here
    own = found.logits[jnp.newaxis]
    if count == 1:
      return jnp.concatenate([own, own])
    fitted = {'fitted': variables['fitted'][f'additions_{STAGE}']}

    def with_member(head: Float[Array, 'b c']) -> Any:
      first = normalized(head, config.link)[jnp.newaxis]
      return addition.apply(fitted, jnp.concatenate([first, found.parts[1:]]))

    return jnp.concatenate([own, jax.vmap(with_member)(found.heads[:count])])

  def predict(batch: Batch) -> MemberPredictions:
    batch = {name: batch[name] for name in ('row', *config.names)}
    found = jax.lax.map(lambda of_member: outputs(of_member, batch), variables)
    if blends:
      table = blended.table_of_device(config.columns, batch)
      found = jnp.stack(
        [
          jax.vmap(lambda x, one=one: blended.outputs(one, table, x, config.link))(each)
          for one, each in zip(blends, found, strict=True)
        ]
      )
    found = predicted(found, config.link)
    members = found[:, 1:].reshape(-1, *found.shape[2:])
    return MemberPredictions(jnp.mean(found[:, 0], axis=0), members)

  return predict
