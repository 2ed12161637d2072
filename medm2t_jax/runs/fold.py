"""One fold of one experiment: its splits, batches, fitted state and model."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import NUM_FOLDS, DataError
from data_pipeline.reading import input_pipeline, planning
from medm2t_jax.experiment import Experiment
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.modalities import fitting
from medm2t_jax.models import medm2t
from medm2t_jax.runs import checkpoint, devices, distributed, workdir

Batch = Mapping[str, Any]

# The data set's splits of which each split of a refit consists.
_OF_REFIT: Mapping[Split, tuple[Split, ...]] = {
  'train': ('train', 'validation'),
  'validation': (),
  'test': ('test',),
}


def parse_folds(text: str) -> tuple[int, ...]:
  """Parses `config.folds`: 'all' or a comma-separated list such as '1,3'.

  Raises:
    DataError: not such a list, or a fold that does not exist.
  """
  known = tuple(range(NUM_FOLDS))
  if text == 'all':
    return known
  folds = tuple(int(part) if part.isdecimal() else -1 for part in str(text).split(','))
  if not set(folds) <= set(known):
    raise DataError(
      f"config.folds={text!r}: give 'all' or a comma-separated list of {known}"
    )
  return tuple(sorted(set(folds)))


def make_folds(config: Experiment, dataset: Dataset, directory: Path) -> list[Fold]:
  """The folds of `config.folds`.

  Raises:
    DataError: an unknown fold, or a model option that does not exist or does not suit the
      data set.
  """
  return [Fold(config, dataset, index, directory) for index in parse_folds(config.folds)]


class Fold:
  """What training and evaluation of one fold need: one run of its stages.

  With `config.refit` a fold has two runs. The first trains on training subjects, and its
  epochs are chosen on validation subjects. `final` is the other one, the refit: it trains
  on both for as many epochs, chooses nothing, and predicts the test subjects.

  Attributes:
    config: the experiment.
    dataset: the prepared data set.
    index: the fold whose subjects test.
    workdir: of the run.
    model: the multimodal model, all stages.
    first: of a refit, the run whose numbers of epochs it takes; None of the first run.
    taken: stage -> workdir of another run, whose stage is read in place of one here, and
      in the refit that of its refit. It is never written to, and its checkpoint's lineage
      is checked like any other.
  """

  def __init__(
    self,
    config: Experiment,
    dataset: Dataset,
    index: int,
    workdir: Path,
    *,
    first: Fold | None = None,
  ):
    self.config = config
    self.dataset = dataset
    self.index = index
    self.workdir = workdir
    self.first = first
    self.taken: Mapping[str, Path] = {}
    self.model_config = model_config(config.task, config.model, dataset.schema)
    self.model = medm2t.MedM2T(self.model_config, axis_name=devices.DEVICE_AXIS)
    self._shapes: dict[str, dict[str, Any]] = {}

  @property
  def refit(self) -> bool:
    """Whether this is the run on training and validation subjects together."""
    return self.first is not None

  @functools.cached_property
  def final(self) -> Fold:
    """The run whose checkpoints predict test subjects: the refit, or without one this."""
    if self.refit or not self.config.refit:
      return self
    home = workdir.refit_directory(self.workdir)
    return Fold(self.config, self.dataset, self.index, home, first=self)

  @property
  def runs(self) -> tuple[Fold, ...]:
    """The runs of the fold, in the order in which they train."""
    return (self,) if self.final is self else (self, self.final)

  @property
  def name(self) -> str:
    """For messages."""
    return workdir.run_name(self.index, self.refit)

  @functools.cached_property
  def statistics(self) -> fitting.Statistics:
    """Fitted on all training subjects of this run, and on nobody else."""
    return distributed.from_first(self._fit)

  def _fit(self) -> fitting.Statistics:
    modalities = self.dataset.schema.modalities
    plan = self.plan('train', modalities, self.config.evaluation.batch_size)
    batches = self.read_here(plan, modalities, signals=False)
    windows, kinds = self.config.model.windows, self.model_config.columns
    return fitting.fit(batches, self.dataset.schema, windows, kinds)

  def modality_of(self, stage: str) -> str | None:
    """The modality that a stage trains on; None for the multimodal stage."""
    if stage == 'multimodal':
      return None
    names = [
      name
      for name in self.dataset.schema.modalities
      if stage == name or stage.startswith(name + '_')
    ]
    return max(names, key=len)

  def modalities_of(self, stage: str) -> tuple[str, ...]:
    """The modalities that a stage reads."""
    modality = self.modality_of(stage)
    return self.dataset.schema.modalities if modality is None else (modality,)

  def rows(self, split: Split) -> np.ndarray:
    """Index rows of a split of this run, ascending: int64 (rows,)."""
    parts = [self.dataset.rows(self.index, part) for part in self._parts(split)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))

  def subject_hashes(self, split: Split) -> frozenset[str]:
    """Keyed hashes of the subjects of a split of this run."""
    parts = [self.dataset.subjects(self.index, part) for part in self._parts(split)]
    return frozenset().union(*parts)

  def _parts(self, split: Split) -> tuple[Split, ...]:
    return _OF_REFIT[split] if self.refit else (split,)

  def has_samples(self, split: Split, stage: str) -> bool:
    """Whether a split has a sample for a stage."""
    rows = self.rows(split)
    modality = self.modality_of(stage)
    if modality in (None, 'static'):
      return bool(len(rows))
    return bool((self.dataset.lengths(modality)[rows] > 0).any())

  def plan(
    self,
    split: Split,
    modalities: tuple[str, ...],
    batch_size: int,
    *,
    require: str | None = None,
    shuffle: tuple[int, int] | None = None,
  ) -> planning.Plan:
    """Plans one pass over a split.

    Args:
      split: 'train', 'validation' or 'test'.
      modalities: those that the batches hold.
      batch_size: samples a step over all devices.
      require: only samples that have this modality.
      shuffle: seeds of the order; None keeps the order of the index.

    Raises:
      DataError: the batch size does not divide over the devices.
    """
    return self.plan_rows(
      self.rows(split), modalities, batch_size, require=require, shuffle=shuffle
    )

  def plan_rows(
    self,
    rows: np.ndarray,
    modalities: tuple[str, ...],
    batch_size: int,
    *,
    require: str | None = None,
    shuffle: tuple[int, int] | None = None,
    devices: int | None = None,
  ) -> planning.Plan:
    """`plan` for any rows of the index (n,) instead of a split's.

    `devices` is for work that one process does alone; by default all there are.
    """
    devices = devices or jax.device_count()
    if batch_size % devices:
      raise DataError(
        f'batch size {batch_size} does not divide over {devices} devices: change '
        'config.recipe.<stage>.batch_size or config.evaluation.batch_size'
      )
    return planning.plan_epoch(
      self.dataset,
      rows,
      modalities=modalities,
      config=self.config,
      batch_rows=batch_size // devices,
      devices=devices,
      require=require,
      shuffle=shuffle,
    )

  def read(
    self, plan: planning.Plan, modalities: tuple[str, ...], start_step: int = 0
  ) -> Iterator[Batch]:
    """This process's share of the steps of a plan, from `start_step` on."""
    return self._stream(
      plan,
      modalities,
      start_step=start_step,
      host=jax.process_index(),
      hosts=jax.process_count(),
    )

  def read_here(
    self, plan: planning.Plan, modalities: tuple[str, ...], *, signals: bool = True
  ) -> Iterator[Batch]:
    """All steps of a plan, for work that one process does alone.

    Args:
      plan: of `plan` or `plan_rows`.
      modalities: to read.
      signals: whether the batches hold ECG signals.
    """
    return self._stream(plan, modalities, signals=signals)

  def _stream(
    self,
    plan: planning.Plan,
    modalities: tuple[str, ...],
    *,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    signals: bool = True,
  ) -> Iterator[Batch]:
    """Where every batch of this fold comes from; the audit changes batches here."""
    return input_pipeline.batches(
      self.dataset,
      plan,
      modalities=modalities,
      config=self.config,
      start_step=start_step,
      host=host,
      hosts=hosts,
      signals=signals,
    )

  def batches(
    self,
    split: Split,
    modalities: tuple[str, ...],
    batch_size: int,
    require: str | None = None,
  ) -> Iterator[Batch]:
    """All samples of a split once, in the order of the index."""
    plan = self.plan(split, modalities, batch_size, require=require)
    return self.read(plan, modalities)

  def init(
    self, stage: str, given: Mapping[tuple[str, ...], Any] | None = None
  ) -> dict[str, Any]:
    """Initial variables of a stage: parameters, batch statistics and fitted state.

    Args:
      stage: of the model.
      given: path -> parameters or batch statistics that take the place of fresh ones.
    """
    shapes = traverse_util.flatten_dict(self.shapes(stage))
    given = given or {}
    fresh = [path for path in shapes if path[0] != 'fitted' and path not in given]

    def initialise(key: jax.Array, batch: Batch) -> list[Any]:
      # What nobody asks for is not compiled.
      variables = traverse_util.flatten_dict(self._variables(stage, key, batch))
      return [variables[path] for path in fresh]

    made = jax.jit(initialise)(self.key(stage), self._example(stage))
    variables = dict(zip(fresh, made, strict=True))
    variables |= {path: given[path] for path in given if path in shapes}
    declared = traverse_util.unflatten_dict(shapes)['fitted']
    return traverse_util.unflatten_dict(variables) | {
      'fitted': fitting.into_collection(self.statistics, declared)
    }

  def shapes(self, stage: str) -> dict[str, Any]:
    """The variables of a stage as shapes, without computing anything."""
    if stage not in self._shapes:
      self._shapes[stage] = jax.eval_shape(
        functools.partial(self._variables, stage), self.key(stage), self._example(stage)
      )
    return self._shapes[stage]

  def _variables(self, stage: str, key: jax.Array, batch: Batch) -> dict[str, Any]:
    model = medm2t.MedM2T(self.model_config)  # no device axis in an initialisation
    return dict(model.init(key, batch, stage=stage, train=False))

  def _example(self, stage: str) -> Batch:
    """A batch for its shapes, of which those of the variables need no more than a row."""
    return input_pipeline.padding(
      self.dataset, modalities=self.modalities_of(stage), config=self.config, rows=1
    )

  def key(self, stage: str) -> jax.Array:
    """The random key of a stage of this fold and seed.

    Of JAX's fast generator: a step with dropout compiles three times faster than with
    threefry, whose rounds are unrolled at every draw.
    """
    key = jax.random.key(self.config.seed, impl='unsafe_rbg')
    key = jax.random.fold_in(key, self.index)
    return jax.random.fold_in(key, np.uint32(zlib.crc32(stage.encode())))

  def lineage(self) -> checkpoint.Lineage:
    """Lineage of parameters that are fitted in this run."""
    return checkpoint.Lineage(
      fold=self.index,
      fitted_on=self.subject_hashes('train'),
      selected_on=self.subject_hashes('validation'),
      data_version=self.dataset.version,
      code_version=workdir.code_version(),
      model=self.config.model.to_dict(),
    )

  def require_unseen(self, lineage: checkpoint.Lineage, where: Path) -> None:
    """Raises DataError if the checkpoint at `where` saw this run's held-out subjects."""
    lineage.require_unseen(
      fold=self.index,
      validation=self.subject_hashes('validation'),
      test=self.subject_hashes('test'),
      where=where,
    )

  def record(self, stage: str) -> workdir.StageRecord | None:
    """What a stage that is over recorded; None while it is not. The same everywhere."""
    fields = distributed.from_first(lambda: self._read_record(stage))
    return None if fields is None else workdir.StageRecord(**fields)

  def _read_record(self, stage: str) -> dict[str, Any] | None:
    record = workdir.read_record(self._home(stage), self.index, stage)
    return None if record is None else dataclasses.asdict(record)

  def _home(self, stage: str) -> Path:
    """The workdir that a stage is read from."""
    if self.first is not None:
      return workdir.refit_directory(self.first._home(stage))
    return self.taken.get(stage, self.workdir)

  def skipped(self, stage: str) -> bool:
    """Whether the stage was skipped because its modality is missing."""
    record = self.record(stage)
    return record is not None and bool(record.skipped)

  def completed(self, stage: str) -> bool:
    """Whether every run of the fold has trained the stage to its end."""
    records = [run.record(stage) for run in self.runs]
    return all(record is not None and not record.skipped for record in records)

  def restore_best(self, stage: str) -> tuple[dict[str, Any], checkpoint.Lineage]:
    """Variables and lineage of a completed stage's best checkpoint.

    Raises:
      DataError: the stage is not complete, or its best checkpoint must not be used
        here or is damaged: no other takes its place.
    """
    directory = workdir.checkpoint_directory(self._home(stage), self.index, stage)
    record = self.record(stage)
    if record is None or record.skipped:
      raise DataError(
        f'{directory}: stage {stage!r} of {self.name} is not complete. Train it '
        f'with --config.stages={stage} --config.folds={self.index}.'
      )
    step = record.best_step
    with checkpoint.Checkpoints(directory) as checkpoints:
      try:
        lineage = checkpoints.lineage(step)
        self.require_unseen(lineage, directory / str(step))
        variables = checkpoints.restore_variables(step, self.shapes(stage))
        weights = [record.part_weights[name] for name in self.model.part_names(stage)]
        return _with_part_weights(variables, stage, weights), lineage
      except checkpoint.DamagedError as error:
        raise DataError(
          f'{error} It is the best checkpoint of the stage: put it back from a copy, or '
          f'delete {directory.parent} and train the stage again.'
        ) from error


def _with_part_weights(
  variables: dict[str, Any], stage: str, weights: Sequence[float]
) -> dict[str, Any]:
  """The variables with the weights that were fitted after training (`StageRecord`)."""
  path = f'additions_{stage}'
  if len(weights) < 2:
    return variables
  addition = variables['fitted'][path] | {'part_weights': np.asarray(weights, np.float32)}
  return {**variables, 'fitted': {**variables['fitted'], path: addition}}
