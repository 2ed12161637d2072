"""The prediction of a trained model and of each member of its ensembles.

A bundle is an ensemble of networks, and the trunk of each network is an ensemble of members
that share most of their weights. If members disagree, the model has seen too few similar
samples. Their spread is not a confidence interval: it does not show what all members share
(the training data, the other parts of the model).
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
    prediction: of the model, as in `program`.
    members: predictions with the ensemble of a network reduced to one member, and the
      bundle to that network; the other parts of the network and the simple models of its
      blend are unchanged.
  """

  prediction: Float[Array, 'b ...']
  members: Float[Array, 'k b ...']


def members_of(model: TrainedModel) -> int:
  """Number of members: k of `MemberPredictions`."""
  return len(model.members) * MedM2T(model.model_config).members(STAGE)


def member_predictions(model: TrainedModel) -> Callable[[Batch], MemberPredictions]:
  """Returns the function of a batch without a device axis, as `program` does."""
  config = model.model_config
  network = MedM2T(config)
  count, parts = network.members(STAGE), len(network.part_names(STAGE))
  addition = LateAddition(config.outputs, parts, config.link)
  variables, blends = jax.device_put(stacked(model))

  def outputs(variables: Any, batch: Batch) -> Float[Array, 'm b c']:
    """Outputs of the network, then with each member in place of its ensemble."""
    found = network.apply(variables, batch, stage=STAGE, train=False)
    assert isinstance(found, Predictions)  # no collection is mutable here
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
