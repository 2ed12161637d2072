"""Opens the data set of an experiment; simulates the default one if it does not exist."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from data_pipeline.format.dataset import Dataset, open_dataset
from data_pipeline.format.options import nearest
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.format.split_file import with_split_file
from data_pipeline.preparation import build
from data_pipeline.reading.alignment import seen_as
from medm2t_jax.experiment import Experiment

_LOGGER = logging.getLogger(__name__)
_ROOT = Path('data/simulated')


def open_or_simulate(config: Experiment, seen: Schema | None = None) -> Dataset:
  """Opens `config.data.dir`; 'simulated' is created first if it does not exist.

  `config.data.split_file` replaces the folds by the splits of that file;
  `config.data.modalities` restricts the schema to those modalities.

  Args:
    config: the experiment.
    seen: schema of a trained model; the data set is then read with that model's variables.

  Raises:
    DataError: the folder is not a prepared data set, is of another task or version, does
      not fit the splits, or lacks one of the modalities.
  """
  directory = Path(config.data.dir)
  if config.data.dir == 'simulated':
    patients, seed = config.data.simulated_patients, config.data.simulated_seed
    hospital = f'{patients}-seed{seed}'
    directory = _ROOT / f'{config.task}-{hospital}'
    if not (directory / 'dataset.json').exists():
      _LOGGER.info('%s does not exist: simulating %d patients', directory, patients)
    build.prepare(
      source='simulated',
      task=config.task,
      out=directory,
      raw=_ROOT / f'raw-{hospital}',
      patients=patients,
      seed=seed,
    )
  dataset = open_dataset(directory)
  if dataset.schema.task != config.task:
    raise DataError(
      f'{directory} was prepared for task {dataset.schema.task!r}, but the config is for '
      f'{config.task!r}. Set --config.data.dir to a data set for this task.'
    )
  if config.data.modalities:
    dataset = only(dataset, config.data.modalities)
  if config.data.split_file:
    if config.folds != '0':
      raise DataError(
        f'config.folds={config.folds!r}: config.data.split_file gives one split in place '
        "of the five folds; config.folds has to be '0'."
      )
    dataset = with_split_file(dataset, Path(config.data.split_file))
  if seen is not None:
    dataset = seen_as(dataset, seen)
  if config.data.version and config.data.version != dataset.version:
    raise DataError(
      f'{directory}: has data version {dataset.version}, the config is for '
      f'{config.data.version}. Give --config.data.dir of that data set and '
      '--config.data.split_file of its splits, or accept any with '
      "--config.data.version=''."
    )
  return dataset


def only(dataset: Dataset, modalities: tuple[str, ...]) -> Dataset:
  """The data set restricted to these modalities; samples and splits are unchanged.

  Raises:
    DataError: the data set lacks one of them.
  """
  known = dataset.schema.modalities
  unknown = [name for name in modalities if name not in known]
  if unknown:
    raise DataError(
      f'config.data.modalities={modalities}: {dataset.directory} has no {unknown[0]!r}'
      f'{nearest(unknown[0], known)}'
    )
  return dataclasses.replace(dataset, schema=dataset.schema.only(modalities))
