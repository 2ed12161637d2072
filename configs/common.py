"""What all experiments share.

Variants follow a colon and are combined with commas, for example `configs/cvd.py:small` or
`configs/mortality.py:smoke`:

  small       the small model, with learning rates for a few thousand samples
  smoke       the experiment at its smallest: it shows that everything runs
  published   the paper's model and recipe: binned events, BiLSTM, encoders with plain
              decoders, no ensemble, no blend (docs/experiments.md compares them)
  end_to_end  only the multimodal stage, from fresh parameters, at the median learning
              rate of the stages that it would have started from: shows what pretraining
              is worth
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from medm2t_jax import experiment
from medm2t_jax.experiment import Config, Experiment, Recipe
from medm2t_jax.studies import ablations

VARIANTS = ('small', 'smoke', 'published', 'end_to_end')
SMALL_BATCH = 32
# The paper's weights of survival and death. With the correction, training starts at the
# optimum of the weighted loss without inputs, and predictions are calibrated.
WEIGHTED_DEATHS = {'class_weights': (0.1, 0.9), 'prior_correction': True}
# The multimodal stage of `small` if only a few hundred samples have the rarer label: with
# longer training, the encoders memorise their training samples, and so does a head that
# starts with random pair vectors (docs/experiments.md).
FROZEN_ENCODERS = {
  'recipe.multimodal.learning_rate': 1e-3,
  'recipe.multimodal.frozen': ('encoders_*',),
  'model.shared_dropout': 0.3,
  'model.decoder_dropout': 0.5,
  'model.pairs_from_zero': True,
}
# For every stage whose unit is the sample, in all tasks and sizes. The run chooses no
# epoch, so that a refit on training and validation subjects can repeat it.
ENSEMBLE_RECIPE = {
  'batch_size': 64,
  'learning_rate': 1e-3,
  'optimizer': 'adamw',
  'weight_decay': 0.03,
  'decayed': 'matrices',
  'schedule': 'cosine',
  'warmup': 0.05,
  'clip_norm': 1.0,
  'epochs': 12,
  'select_by': 'last',
  'class_weights': (),
  'prior_correction': False,
}
ECG_VIEWS = ('ecg_signal', 'ecg_features', 'ecg_text')


def stage(batch_size: int, learning_rate: float, **overrides: Any) -> dict[str, Any]:
  """The fields of one training stage: the defaults of `Recipe` with `overrides`."""
  return Recipe(batch_size, learning_rate, **overrides).to_fields()


def base(task: str, recipe: Mapping[str, dict[str, Any]]) -> Config:
  """The config of an experiment with the defaults of `Experiment` and the paper's sizes.

  Args:
    task: the task that the data set is prepared for.
    recipe: stage name -> `stage(...)`.
  """
  stages = {name: Recipe(**fields) for name, fields in recipe.items()}
  return ConfigDict(Experiment(task=task, name=task, recipe=stages).to_fields())


def predicts_samples(name: str) -> bool:
  """Whether the unit of a stage is the sample, not a segment or a recording."""
  return not name.startswith(('ecg_', 'waveform_')) and '_segments' not in name


def hourly_cuts(hours: int) -> tuple[float, ...]:
  """Limits, in hours, of `hours` one-hour windows that end at the prediction time."""
  return tuple(float(hour) for hour in range(1 - hours, 0))


def apply_variants(
  config: Config,
  argument: str | None,
  *,
  small_rate: float,
  small_overrides: Mapping[str, Any],
  of_samples: Mapping[str, Any] = ENSEMBLE_RECIPE,
) -> Config:
  """Applies comma-separated variants and locks the config.

  Args:
    config: from `base`.
    argument: the text after the colon of `--config=configs/cvd.py:small`.
    small_rate: learning rate of all stages but the last in the `small` variant. The paper's
      rates are for 40,000 to 170,000 samples: with a few hundred samples they would hardly
      move the parameters in 20 epochs.
    small_overrides: path -> value for further changes of `small`. The multimodal stage
      starts from trained parameters, so at least its learning rate differs.
    of_samples: recipe of the stages whose unit is the sample, except in `published`.

  Raises:
    ValueError: a variant is unknown.
  """
  variants = [name for name in (argument or '').split(',') if name]
  for variant in variants:
    if variant not in VARIANTS:
      raise ValueError(
        f'unknown variant {variant!r} of config {config.name!r}; known: {VARIANTS}'
      )
  if variants:
    config.name = '_'.join([config.name, *variants])
  if 'small' in variants or 'smoke' in variants:
    config.model.size = 'small'
    for fields in config.recipe.values():
      # The running statistics of BatchNorm need tens of steps per epoch.
      fields.batch_size = min(fields.batch_size, SMALL_BATCH)
      fields.learning_rate = small_rate
      fields.optimizer = 'adam'
      fields.patience = 3
    config.update_from_flattened_dict(dict(small_overrides))
    # A single shape to compile; padded events cost less than compiling a second one.
    config.data.buckets = config.data.buckets[-1:]
  if 'published' in variants:
    config.blend = ()
    config.update_from_flattened_dict(ablations.published())
  else:
    for name, fields in config.recipe.items():
      if predicts_samples(name):
        fields.update(of_samples)
    config.recipe.multimodal.frozen = ('encoders_*',)
  if 'end_to_end' in variants:
    config.update_from_flattened_dict(ablations.end_to_end(experiment.read(config)))
  if 'smoke' in variants:
    config.model.size = 'tiny'
    config.refit = False
    config.data.simulated_patients = 150
    config.evaluation.bootstrap = 100
    config.evaluation.baselines = ('logistic_regression',)
    if config.blend:
      config.blend = ('logistic_regression',)
    config.evaluation.sections = tuple(
      name for name in config.evaluation.sections if name != 'robustness'
    )
    config.evaluation.explained = 0
    config.evaluation.explained_globally = 0
    for fields in config.recipe.values():
      fields.epochs = 1
  return config.lock()
