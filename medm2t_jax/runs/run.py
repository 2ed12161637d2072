"""A run: one experiment on one data set and fold, in one workdir."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import DataError
from data_pipeline.reading import planning
from medm2t_jax.experiment import Experiment
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.experiment.validation import folds_of, require_suits
from medm2t_jax.modalities import fitting
from medm2t_jax.models import medm2t
from medm2t_jax.models.modality import Stage
from medm2t_jax.runs import fitted_state, workdir
from medm2t_jax.runs.hosts import devices, distributed
from medm2t_jax.runs.reader import Batch, Reader
from medm2t_jax.runs.splits import Splits
from medm2t_jax.runs.start import Start


def make_runs(
  config: Experiment, dataset: Dataset, directory: Path, starts: Sequence[Start] = ()
) -> list[Run]:
  """The first runs of the folds of `config.folds`.

  Args:
    config: the experiment.
    dataset: the prepared data set, aligned to the bundle of `starts`.
    directory: the workdir.
    starts: members of the bundle to start from, assigned to the folds in rotation.

  Raises:
    DataError: the experiment does not fit the data set, or needs `starts` that are not
      given.
  """
  if config.start_from and not starts:
    raise DataError(
      'config.start_from: only `python -m medm2t_jax.main` trains from a trained model.'
    )
  runs = [
    Run(
      config, dataset, fold, directory, start=starts[fold % len(starts)] if starts else None
    )
    for fold in folds_of(config)
  ]
  require_suits(config, dataset.schema.target, runs[0].stages)
  return runs


class Run:
  """One run of the experiment's stages on a fold: the input of training and evaluation.

  With `config.refit` a fold has two runs. The first trains on training subjects and chooses
  its epochs on validation subjects. `final` is the refit: it trains on both for the same
  numbers of epochs, chooses nothing, and predicts the test subjects.

  Attributes:
    config: the experiment.
    dataset: the prepared data set.
    fold: whose subjects test.
    workdir: of the run.
    first: of a refit, the run whose numbers of epochs it uses; None in the first run.
    taken: stage -> workdir of another run whose stage is used here (and whose refit's stage
      in the refit). It is never written to, and its checkpoint's lineage is checked like
      any other.
    start: the bundle member that its stages start from; None from scratch.
    splits: training, validation and test samples.
    reader: of its batches.
    model: the multimodal model, all stages.
  """

  def __init__(
    self,
    config: Experiment,
    dataset: Dataset,
    fold: int,
    workdir: Path,
    *,
    first: Run | None = None,
    taken: Mapping[str, Path] | None = None,
    start: Start | None = None,
    change: Callable[[Batch], Batch] | None = None,
  ):
    """Builds the model; `change` is that of `Reader`."""
    self.config = config
    self.dataset = dataset
    self.fold = fold
    self.workdir = workdir
    self.first = first
    self.taken = dict(taken or {})
    self.start = start
    self.splits = Splits(dataset, fold, refit=first is not None)
    self.reader = Reader(dataset, config.data, change)
    self.model_config = model_config(config.task, config.model, dataset.schema)
    self.model = medm2t.MedM2T(self.model_config, axis_name=devices.DEVICE_AXIS)

  @property
  def refit(self) -> bool:
    """Whether this is the run on training and validation subjects together."""
    return self.first is not None

  @functools.cached_property
  def final(self) -> Run:
    """The run whose checkpoints predict test subjects: the refit, or else this run."""
    if self.refit or not self.config.refit:
      return self
    home = workdir.refit_directory(self.workdir)
    return Run(
      self.config,
      self.dataset,
      self.fold,
      home,
      first=self,
      start=self.start,
      change=self.reader.change,
    )

  @property
  def runs(self) -> tuple[Run, ...]:
    """The runs of the fold, in training order."""
    return (self,) if self.final is self else (self, self.final)

  @property
  def name(self) -> str:
    """The name of the run for messages."""
    return workdir.run_name(self.fold, self.refit)

  @functools.cached_property
  def statistics(self) -> fitting.Statistics:
    """The statistics fitted on exactly the training subjects of this run."""
    return fitted_state.kept_or_fitted(
      self.reader,
      self.splits,
      self.model_config,
      workdir.stage_directory(self.workdir, self.fold, 'fitted'),
      batch_size=self.config.evaluation.batch_size,
    )

  @property
  def stages(self) -> dict[str, Stage]:
    """Name -> stage that is trained, in order.

    When starting from a bundle, only those whose unit is the sample: parts of an encoder
    are already trained.
    """
    every = self.model_config.stages
    if self.start is None:
      return every
    return {name: stage for name, stage in every.items() if stage.of_samples}

  def modalities_of(self, stage: str) -> tuple[str, ...]:
    """The modalities that a stage reads."""
    modality = self.model_config.stages[stage].modality
    return self.model_config.names if modality is None else (modality,)

  def plan(
    self,
    split: Split,
    modalities: tuple[str, ...],
    batch_size: int,
    *,
    require: str | None = None,
    shuffle: tuple[int, int] | None = None,
  ) -> planning.Plan:
    """Plans one pass over a split: `Reader.plan` of its rows."""
    return self.reader.plan(
      self.splits.rows(split), modalities, batch_size, require=require, shuffle=shuffle
    )

  def home_of(self, stage: str) -> Path:
    """The workdir that a stage is read from."""
    if self.first is not None:
      return workdir.refit_directory(self.first.home_of(stage))
    return self.taken.get(stage, self.workdir)

  def record(self, stage: str) -> workdir.StageRecord | None:
    """The record of a finished stage, None before; the same in all processes."""

    def read() -> dict[str, Any] | None:
      record = workdir.read_record(self.home_of(stage), self.fold, stage)
      return None if record is None else dataclasses.asdict(record)

    fields = distributed.from_first(read)
    return None if fields is None else workdir.StageRecord(**fields)

  def require_record(self, stage: str) -> workdir.StageRecord:
    """The record of a stage that was trained to its end.

    Raises:
      DataError: it was not, or it was skipped.
    """
    record = self.record(stage)
    if record is None or record.skipped:
      directory = workdir.checkpoint_directory(self.home_of(stage), self.fold, stage)
      raise DataError(
        f'{directory}: stage {stage!r} of {self.name} is not complete. Train it '
        f'with --config.stages={stage} --config.folds={self.fold}.'
      )
    return record


def was_skipped(run: Run, stage: str) -> bool:
  """Whether the stage was skipped because its modality is missing."""
  record = run.record(stage)
  return record is not None and bool(record.skipped)


def is_complete(run: Run, stage: str) -> bool:
  """Whether every run of the fold has trained the stage to its end."""
  records = [each.record(stage) for each in run.runs]
  return all(record is not None and not record.skipped for record in records)


def all_records(folds: Sequence[Run]) -> list[workdir.StageRecord]:
  """The records of all finished stages, of all runs of the folds."""
  records = [
    run.record(stage) for fold in folds for run in fold.runs for stage in fold.stages
  ]
  return [record for record in records if record is not None]
