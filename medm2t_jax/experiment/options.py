"""An experiment as frozen dataclasses: a config of `configs/` after it is read.

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
  Place,
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
  """How a stage is trained. A number of 0 or an empty tuple turns a setting off.

  Attributes:
    batch_size: samples per step over all devices. Stages that train on recordings or
      segments use all recordings or segments of these samples.
    learning_rate: of the optimizer.
    optimizer: 'adam' and 'sgd' add the weight decay to the gradient; 'adamw' decouples it.
    schedule: after the warm-up: 'constant', or 'cosine' down to 0.
    warmup: share of all steps.
    clip_norm: largest global norm of the gradients.
    weight_decay: of the parameters.
    decayed: which parameters decay: 'all', or only 'matrices' (and tables).
    ema_decay: decay of an exponential moving average of the parameters, which replaces them
      in predictions and checkpoints.
    loss: classes and labels: 'nll'. Numbers: 'absolute', 'squared', 'huber', 'log_squared'.
      Empty: the first of them.
    huber_delta: absolute error at which the Huber loss becomes linear, in the unit of the
      label.
    class_weights: one weight per class, or per label for its true samples.
    prior_correction: whether to remove the effect of the class weights from the logits.
    epochs: largest number of epochs.
    patience: the stage ends after so many epochs without improvement.
    select_by: how the best epoch is chosen: 'loss' or a metric of
      `medm2t_jax.training.selection`; 'last' takes the last epoch.
    starts_from: stages whose parameters initialise this stage; `*` is a wildcard.
    frozen: path prefixes of parameters that are not updated; `*` is a wildcard.
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
  """Which data to use, and how to batch it.

  Attributes:
    dir: a folder written by `python -m data_pipeline.prepare`, or 'simulated': the
      simulated hospital, created under data/simulated if it does not exist.
    version: version that dataset.json must have; empty for any.
    modalities: modalities to use; empty for all that the data set has.
    split_file: a JSON file {"train": [...], "val": [...], "test": [...]} of sample ids that
      replaces the five folds; empty for none.
    simulated_patients: number of patients of the simulated hospital.
    simulated_seed: seed of the simulated hospital.
  """

  dir: Place = 'simulated'
  version: str = ''
  modalities: tuple[str, ...] = ()
  split_file: Place = ''
  simulated_patients: Count = 2000
  simulated_seed: CountFromZero = 0


@dataclasses.dataclass(frozen=True)
class TrainingOptions(Options):
  """How training runs. None of these options changes a result.

  Attributes:
    processes: on CPUs: how many folds train at the same time, each in its own process; a
      small model takes 2 GB. On other devices folds always train one after the other.
    save_every_steps: interval of checkpoints inside an epoch, in steps.
    save_every_seconds: also save at the end of an epoch if the last checkpoint is older
      than this; the best and the last epoch are always saved.
    tensorboard: also write TensorBoard events; needs the extra `tensorboard`.
  """

  processes: Count = 1
  save_every_steps: Count = 1000
  save_every_seconds: NotNegative = 30.0
  tensorboard: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluationOptions(Options):
  """What the report contains.

  Attributes:
    batch_size: samples per prediction step, over all devices.
    bootstrap: number of resamples of the subjects.
    baselines: models to compare with.
    sections: of the report; with `robustness` it has predictions from every subset of the
      modalities, otherwise from some. Empty: no evaluation.
    robustness_samples: largest number of test samples per kind of damage.
    explained: number of test samples with a page that shows what their prediction depends
      on.
    explained_globally: number of random test samples over which the importance of every
      variable is averaged.
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
  """Everything that determines a run.

  Attributes:
    task: the task that the data set is prepared for.
    name: of the experiment and its variants; the default workdir is runs/NAME.
    recipe: stage, or kind of stage -> how it is trained.
    seed: of training.
    augmentation: probability of each kind of damage of `medm2t_jax.damage` that is done to
      a training sample, in every epoch anew; 0: none.
    refit: whether to train each fold again, on its training and validation subjects
      together, for the numbers of epochs chosen in the first run; the refit predicts the
      test subjects.
    blend: baselines whose log odds (or numbers) are added to the model's, with weights
      fitted on validation subjects; predictions are then those of the blend.
    folds: folds to run: '0', '1,3' or 'all'.
    stages: stages to train: 'all' or a comma-separated list.
    start_from: a bundle (`python -m medm2t_jax.bundle`) from which training starts, on this
      data set and with the bundle's model options; empty: from scratch.
    start_from_version: version that the bundle must have; empty for any.
    adapt: what is trained with `start_from`: 'all', or only the output layers ('head').
    adapt_rate: factor on the learning rates with `start_from`.
    data: which data to use.
    model: architecture.
    training: how training runs.
    evaluation: what the report contains.
  """

  task: str
  name: str
  recipe: Mapping[str, Recipe]
  seed: CountFromZero = 0
  augmentation: Rate = 0.0
  refit: bool = True
  blend: tuple[Blended, ...] = ('boosted_trees', 'logistic_regression')
  folds: str = '0'
  stages: str = 'all'
  start_from: Place = ''
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
    stage: the stage whose validation metric is the objective.
    trials: number of trials, failed ones included.
    seed: of the search.
    space: one entry per swept value: (path, kind, ...), see `configs.sweeps.common`.
    experiment: the base of every trial.
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
