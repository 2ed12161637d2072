"""Starting from a trained model, on other data: `config.start_from`."""

from __future__ import annotations

import dataclasses

from data_pipeline.format.schema import DataError, Schema
from medm2t_jax.experiment import Experiment
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.runs.start import Start


@dataclasses.dataclass(frozen=True)
class Beginning:
  """An experiment and what it begins with.

  Attributes:
    config: the experiment; from a trained model, with the model options of that one.
    schema: how data sets are seen; None: as they are.
    starts: members of the trained model; none from scratch.
  """

  config: Experiment
  schema: Schema | None
  starts: tuple[Start, ...]


def begin(config: Experiment) -> Beginning:
  """Reads `config.start_from`.

  Raises:
    DataError: it is no bundle, or not the one that `config.start_from_version` names; it
      predicts another task.
  """
  if not config.start_from:
    return Beginning(config, None, ())
  model = TrainedModel.load(config.start_from)
  if model.schema.task != config.task:
    raise DataError(
      f'config.start_from={config.start_from}: predicts {model.schema.task!r}, the '
      f'experiment {config.task!r}.'
    )
  if config.start_from_version not in ('', model.version):
    raise DataError(
      f'config.start_from={config.start_from}: is version {model.version}, the experiment '
      f'started from {config.start_from_version}. Give the path of that one.'
    )
  changed = config.changed(
    {
      'start_from_version': model.version,
      'data.modalities': (),  # those of the model are read
      # It is the whole model that is adapted, with the baselines in its blend.
      'blend': tuple((model.members[0].blend or {'models': ()})['models']),
      'model': model.options,
    }
  )
  starts = tuple(
    Start(member.variables, member.blend, member.lineage, model.key_fingerprint)
    for member in model.members
  )
  return Beginning(changed, model.schema, starts)
