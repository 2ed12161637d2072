"""Starts training from a trained model, on other data: `config.start_from`."""

from __future__ import annotations

import dataclasses

from data_pipeline.format.schema import DataError, Schema
from medm2t_jax.experiment import Experiment
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.runs.start import Start


@dataclasses.dataclass(frozen=True)
class Beginning:
  """An experiment and the trained model it starts from.

  Attributes:
    config: the experiment; if it starts from a bundle, with the model options of the
      bundle.
    schema: the bundle's schema, with which data sets are read; None: that of the data set.
    starts: members of the bundle; empty when training from scratch.
  """

  config: Experiment
  schema: Schema | None
  starts: tuple[Start, ...]


def begin(config: Experiment) -> Beginning:
  """Reads `config.start_from`.

  Raises:
    DataError: the folder is not a bundle, is not of the version
      `config.start_from_version`, or predicts another task.
  """
  if not config.start_from:
    return Beginning(config, None, ())
  model = TrainedModel.load(config.start_from)
  if model.schema.task != config.task:
    raise DataError(
      f'config.start_from={config.start_from} predicts {model.schema.task!r}, but the '
      f'experiment predicts {config.task!r}.'
    )
  if config.start_from_version not in ('', model.version):
    raise DataError(
      f'config.start_from={config.start_from} has version {model.version}, but the '
      f'experiment needs {config.start_from_version}. Give the path of that version.'
    )
  changed = config.changed(
    {
      'start_from_version': model.version,
      'data.modalities': (),  # those of the model are used
      # The whole model is adapted, so the blend keeps the bundle's baselines.
      'blend': tuple((model.members[0].blend or {'models': ()})['models']),
      'model': model.options,
    }
  )
  starts = tuple(
    Start(member.variables, member.blend, member.lineage, model.key_fingerprint)
    for member in model.members
  )
  return Beginning(changed, model.schema, starts)
