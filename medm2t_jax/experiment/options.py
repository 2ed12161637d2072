"""An experiment as frozen dataclasses: what a config of `configs/` is once it is read.

docs/training.md says what each field does and when to change it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from data_pipeline.format.items import DataError
from data_pipeline.format.options import (
  Count,
  CountFromZero,
  NotNegative,
  Options,
  Positive,
  Rate,
)
from data_pipeline.reading.batching import Batching
from medm2t_jax.models.options import ModelOptions

Optimizer = Literal['adam', 'sgd', 'adamw']
Schedule = Literal['constant', 'cosine']
Decayed = Literal['all', 'matrices']
Blended = Literal['boosted_trees', 'logistic_regression']
Baseline = Literal[
  'logistic_regression', 'boosted_trees', 'gru', 'single_modalities'
]  # fmt: skip
Adapted = Literal['all', 'head']
Shown = Literal[
  'discrimination', 'baselines', 'calibration', 'decisions', 'subgroups',
  'missing_modality', 'robustness', 'explanation', 'training', 'card',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Recipe(Options):
  """How a stage is trained. Numbers that are 0 and tuples that are empty are off.

  Attributes:
    batch_size: samples a step over all devices. Stages that train on recordings or
      segments use all those of these samples.
    learning_rate: of the optimizer.
    optimizer: 'adam' and 'sgd' have the weight decay in the gradient, 'adamw' beside it.
    schedule: after the warm-up: 'constant', or 'cosine' down to 0.
    warmup: share of all steps.
    clip_norm: largest global norm of the gradients.
    weight_decay: of the parameters.
    decayed: which of them: 'all', or 'matrices' and tables alone.
    ema_decay: exponential moving average of the parameters, which are then used and saved.
    loss: classes and labels: 'nll'. Numbers: 'absolute', 'squared', 'huber',
      'log_squared'. Empty: the first of them.
    huber_delta: of the Huber loss, in the unit of the label.
    class_weights: one weight per class, or per label where it is true.
    prior_correction: whether logits are freed of the effect of the class weights.
    epochs: how many.
    patience: epochs without an improvement before the stage ends.
    select_by: what the best epoch is chosen by: 'loss' or a metric of
      `medm2t_jax.training.selection`; with 'last' it is the last one.
    starts_from: stages whose parameters this one continues from, with `*`.
    frozen: prefixes of the paths of parameters that are not updated, with `*`.
  """

  batch_size: Count
  learning_rate: Positive
  optimizer: Optimizer = 'adam'
  schedule: Schedule = 'constant'
  warmup: Rate = 0.0
  clip_norm: NotNegative = 0.0
  weight_decay: NotNegative = 0.0
  decayed: Decayed = 'all'
  ema_decay: Rate = 0.0
  loss: str = 'nll'
  huber_delta: Positive = 1.0
  class_weights: tuple[Positive, ...] = ()
  prior_correction: bool = False
  epochs: Count = 20
  patience: Count = 5
  select_by: str = 'loss'
  starts_from: tuple[str, ...] = ()
  frozen: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataOptions(Batching):
  """Which data, and how they become batches.

  Attributes:
    dir: a folder written by `python -m data_pipeline.prepare`, or 'simulated': the
      simulated hospital below, made under data/simulated where it is absent.
    version: of dataset.json that the data set must have; empty for any.
    modalities: to use, of those that the data set has; empty for all.
    split_file: a JSON file {"train": [...], "val": [...], "test": [...]} of sample ids
      whose splits take the place of the five folds; empty for none.
    simulated_patients: of the simulated hospital.
    simulated_seed: of the simulated hospital.
  """

  dir: str = 'simulated'
  version: str = ''
  modalities: tuple[str, ...] = ()
  split_file: str = ''
  simulated_patients: Count = 2000
  simulated_seed: CountFromZero = 0


@dataclasses.dataclass(frozen=True)
class TrainingOptions(Options):
  """How training runs; it changes no result.

  Attributes:
    processes: on CPUs: how many folds train at the same time, each in a process of its
      own; a small model takes 2 GB. Elsewhere they follow each other.
    save_every_steps: checkpoints inside an epoch.
    save_every_seconds: an epoch's end is saved after so long, beside the best and last.
    tensorboard: events beside metrics.jsonl; needs the extra `tensorboard`.
  """

  processes: Count = 1
  save_every_steps: Count = 1000
  save_every_seconds: NotNegative = 30.0
  tensorboard: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluationOptions(Options):
  """What a report has.

  Attributes:
    batch_size: of predictions, over all devices.
    bootstrap: resamples of the subjects.
    baselines: what the model is compared with.
    sections: of the report; with `robustness` predictions from every subset of the
      modalities are in it, else from some. Without any there is no evaluation.
    robustness_samples: of how many test samples at most those of each damage are.
    explained: how many test samples get a page that shows what their prediction depends
      on.
    explained_globally: over how many random ones the importance of every variable is
      averaged.
  """

  batch_size: Count = 128
  bootstrap: Count = 1000
  baselines: tuple[Baseline, ...] = (
    'logistic_regression', 'boosted_trees', 'gru', 'single_modalities'
  )  # fmt: skip
  sections: tuple[Shown, ...] = get_args(Shown)
  robustness_samples: Count = 1000
  explained: CountFromZero = 4
  explained_globally: CountFromZero = 64


@dataclasses.dataclass(frozen=True)
class Experiment(Options):
  """All that a run follows from.

  Attributes:
    task: that the data set is prepared for.
    name: of the experiment and its variants; the default workdir is runs/NAME.
    recipe: stage, or kind of stage -> how it is trained.
    seed: of training.
    refit: whether a fold is trained once more, on its training and validation subjects,
      for the numbers of epochs that these have chosen; that run predicts the test subjects.
    blend: baselines whose log odds (or numbers) are added to those of the model, with
      weights fitted on validation subjects; the blend is then what predicts.
    folds: which to run: '0', '1,3' or 'all'.
    stages: which to train: 'all' or a comma-separated list.
    start_from: a trained model (`python -m medm2t_jax.bundle`) that training starts from,
      on this data set, with its model options; empty to start from scratch.
    start_from_version: that it must have; empty for any.
    adapt: what is trained then: 'all', or the output layers alone ('head').
    adapt_rate: by what part of the learning rates.
    data: which data.
    model: what the model is.
    training: how training runs.
    evaluation: what the report has.
  """

  task: str
  name: str
  recipe: Mapping[str, Recipe]
  seed: CountFromZero = 0
  refit: bool = True
  blend: tuple[Blended, ...] = ('boosted_trees', 'logistic_regression')
  folds: str = '0'
  stages: str = 'all'
  start_from: str = ''
  start_from_version: str = ''
  adapt: Adapted = 'all'
  adapt_rate: Positive = 0.3
  data: DataOptions = dataclasses.field(default_factory=DataOptions)
  model: ModelOptions = dataclasses.field(default_factory=ModelOptions)
  training: TrainingOptions = dataclasses.field(default_factory=TrainingOptions)
  evaluation: EvaluationOptions = dataclasses.field(default_factory=EvaluationOptions)


@dataclasses.dataclass(frozen=True)
class Sweep(Options):
  """A search over values of an experiment.

  Attributes:
    name: of the sweep; the default directory is sweeps/NAME.
    stage: whose metric is the objective.
    trials: how many, those that failed included.
    seed: of the search.
    space: one entry a swept value: (path, kind, ...), as of `configs.sweeps.common`.
    experiment: what every trial starts from.
  """

  name: str
  stage: str
  trials: CountFromZero
  seed: CountFromZero
  space: tuple[tuple[Any, ...], ...]
  experiment: Experiment

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.stage not in self.experiment.recipe:
      raise DataError(
        f'sweep.stage={self.stage!r}: the experiment has {sorted(self.experiment.recipe)}'
      )
