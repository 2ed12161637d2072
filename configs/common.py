"""Parts that all experiments share.

Variants are given after a colon and combined with commas, for example
`configs/cvd.py:small` or `configs/mortality.py:smoke`:

  small       the small model and learning rates for a few thousand samples
  smoke       the same experiment at its smallest: it shows that everything runs
  published   the paper's model and recipe: binned events, BiLSTM, encoders with plain
              decoders, no ensemble, no blend (docs/experiments.md compares them)
  end_to_end  the multimodal model alone, from fresh parameters, at the median learning
              rate of the stages that it would have started from: what pretraining is
              worth
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from medm2t_jax.experiment import Experiment
from medm2t_jax.studies import ablations

VARIANTS = ('small', 'smoke', 'published', 'end_to_end')
SMALL_BATCH = 32
# The paper's weights of survival and death. With the correction training starts at the
# optimum that the weighted loss has without any input, and predictions are calibrated.
WEIGHTED_DEATHS = {'class_weights': (0.1, 0.9), 'prior_correction': True}
# The multimodal stage of `small` where a few hundred samples have the rarer label: trained
# further, encoders know their training samples by heart, and so does a head that starts
# with random pair vectors (docs/experiments.md).
FROZEN_ENCODERS = {
  'recipe.multimodal.learning_rate': 1e-3,
  'recipe.multimodal.frozen': ('encoders_*',),
  'model.shared_dropout': 0.3,
  'model.decoder_dropout': 0.5,
  'model.pairs_from_zero': True,
}
# Of every stage whose unit is the sample, for all tasks and sizes: nothing is chosen in a
# run, so that it can be repeated on all subjects that may be learnt from.
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
  """One training stage.

  Args:
    batch_size: samples a step over all devices. Stages that train on recordings
      or segments use all those of these samples.
    learning_rate: of the optimizer.
    **overrides: any other field below.

  Returns:
    The stage's fields. docs/training.md says what each of them does; numbers that
    are 0 and tuples that are empty switch their option off.
  """
  fields = {
    'batch_size': batch_size,
    'learning_rate': learning_rate,
    # 'adam', 'sgd' (decay in the gradient), 'adamw', 'lamb', 'lion' (decay beside it).
    'optimizer': 'adam',
    # After the warm-up: 'constant', or 'cosine' or 'linear' down to a fraction.
    'schedule': 'constant',
    # Share of all steps.
    'warmup': 0.0,
    'final_fraction': 0.0,
    # Largest global norm of the gradients.
    'clip_norm': 0.0,
    'weight_decay': 0.0,
    # Of 'all' parameters, or of 'matrices' and tables alone.
    'decayed': 'all',
    # Exponential moving average of the parameters, which are then used and saved.
    'ema_decay': 0.0,
    # Classes and labels: 'nll', 'focal'. Numbers: 'absolute', 'squared', 'huber',
    # 'log_squared'. Empty: the first of them.
    'loss': 'nll',
    'focal_gamma': 2.0,
    'huber_delta': 1.0,  # in the unit of the label
    # One weight per class, or per label where it is true, or none; and whether logits are
    # freed of their effect.
    'class_weights': (),
    'prior_correction': False,
    'epochs': 20,
    # Epochs without an improvement before the stage ends.
    'patience': 5,
    # What the best epoch is chosen by: 'loss' or a metric of
    # `medm2t_jax.training.selection`. With 'last' nothing is: it is the last one,
    # whatever `patience` says.
    'select_by': 'loss',
    # Stages whose parameters this one continues from, with `*`.
    'starts_from': (),
    # Prefixes of the paths of parameters that are not updated, with `*`.
    'frozen': (),
  }
  unknown = set(overrides) - set(fields)
  if unknown:
    raise ValueError(f'unknown stage fields {sorted(unknown)}')
  return {**fields, **overrides}


def base(task: str, recipe: Mapping[str, dict[str, Any]]) -> Experiment:
  """The fields that every experiment has; sizes follow the paper.

  Args:
    task: that the data set is prepared for.
    recipe: stage name -> `stage(...)`.
  """
  return config_dict.ConfigDict(
    {
      'task': task,
      'name': task,
      'seed': 0,
      # Whether a fold is trained once more, on its training and validation subjects, for
      # the numbers of epochs that these have chosen; that run predicts the test subjects.
      'refit': True,
      # Baselines whose log odds (or days) are added to those of the model, with weights
      # fitted on validation subjects; the blend is then what predicts. () for none.
      'blend': ('boosted_trees', 'logistic_regression'),
      # Which folds to run: '0', '1,3' or 'all'.
      'folds': '0',
      # Which stages to train: 'all' or a comma-separated list.
      'stages': 'all',
      # A trained model (`python -m medm2t_jax.bundle`) that training starts from, on this
      # data set, with the model options of the former; empty to start from scratch.
      'start_from': '',
      # The version of it that it must be; empty for any.
      'start_from_version': '',
      # What is trained then: 'all', or the output layers alone ('head'); and by what part
      # of the learning rates below.
      'adapt': 'all',
      'adapt_rate': 0.3,
      'data': {
        # A folder written by `python -m data_pipeline.prepare`, or 'simulated': the
        # simulated hospital below, made under data/simulated where it is absent.
        'dir': 'simulated',
        # The version of dataset.json that the data set must have; empty for any.
        'version': '',
        # Modalities to use, of those that the data set has; empty for all.
        'modalities': (),
        # A JSON file {"train": [...], "val": [...], "test": [...]} of sample ids whose
        # splits take the place of the five folds (`folds` is then '0'); empty for none.
        'split_file': '',
        'simulated_patients': 2000,
        'simulated_seed': 0,
        # Padded numbers of events; a sample goes to the first that holds it.
        'buckets': (),
        # A sample with more recordings keeps the most recent ones.
        'max_recordings': 8,
        # Capacity for packed recordings, per sample of a batch; 0: chosen from the number
        # that the samples of the split have. A batch that is full closes early.
        'recordings_per_row': 0.0,
      },
      'model': {
        'size': 'paper',
        'dtype': 'float32',
        'value_encoding': 'piecewise_linear',
        'pooling': 'statistics',
        'accumulation': 'mean',
        'tables': 'shared',
        'sequence': 'mean_last',
        # What predicts: an 'ensemble' of so many members that reads summary statistics, or
        # a plain 'decoder' of the encoders' vectors.
        'trunk': 'ensemble',
        'ensemble': 16,
        'trunk_dropout': 0.1,
        # Share of the chunks (a statistic of an item) hidden from a member.
        'chunk_dropout': 0.3,
        # How encoders enter beside an ensemble: the outputs of their decoder added 'late',
        # their vectors as 'chunks', or 'none'.
        'deep': 'late',
        # Whether what each modality's own stage predicts is added 'late' too, or 'none'.
        'single_stages': 'late',
        # With pooling='statistics': of an item's statistics, and of the windows.
        'input_dropout': 0.3,
        'window_dropout': 0.5,
        # Event and ECG windows: ('percentiles', cuts in %) of training event times,
        # or ('hours', cuts in hours relative to the prediction time).
        'windows': {},
        'segment_lengths': (12, 24),
        'segments': 24,
        'grid_levels': 'both',
        'grid_channels': 'values',
        'ecg_crop': 'middle',
        # 'ecg': less memory in training, one more forward pass of the signal.
        'remat': 'none',
        'fusion': 'add',
        'attend_over': 'tokens',
        'attention_blocks': 1,
        'shared_encoder': 'before',
        # Of the multimodal head: after its shared encoder, in its decoder, of modalities.
        'shared_dropout': 0.05,
        'decoder_dropout': 0.1,
        'modality_dropout': 0.1,
        # Its pair vectors times a learnt factor that is 0 at first.
        'pairs_from_zero': False,
      },
      'training': {
        # On CPUs: how many folds train at the same time, each in a process of its own; a
        # small model takes 2 GB. Elsewhere they follow each other.
        'processes': 1,
        # Also saved at the end of every epoch.
        'save_every_steps': 1000,
        'save_every_seconds': 30.0,
        # TensorBoard events beside metrics.jsonl; needs the extra `tensorboard`.
        'tensorboard': False,
      },
      'recipe': dict(recipe),
      'evaluation': {
        'batch_size': 128,
        'bootstrap': 1000,
        # What the model is compared with: names of `medm2t_jax.baselines.KNOWN`.
        'baselines': (
          'logistic_regression',
          'boosted_trees',
          'gru',
          'single_modalities',
        ),
        # Whether predictions from damaged input and from every subset of the modalities
        # are in the report, and of how many test samples at most those of each damage are.
        'robustness': True,
        'robustness_samples': 1000,
        # How many test samples get a page of their own that shows what their prediction
        # depends on, and over how many random ones the importance of every variable is
        # averaged; 0 for none.
        'explained': 4,
        'explained_globally': 64,
      },
    }
  )


def predicts_samples(name: str) -> bool:
  """Whether the unit of a stage is the sample, and not a segment or a recording."""
  return not name.startswith(('ecg_', 'waveform_')) and '_segments' not in name


def hourly_cuts(hours: int) -> tuple[float, ...]:
  """Cuts of `hours` one-hour windows that end at the prediction time, in hours."""
  return tuple(float(hour) for hour in range(1 - hours, 0))


def apply_variants(
  config: Experiment,
  argument: str | None,
  *,
  small_rate: float,
  small_overrides: Mapping[str, Any],
  of_samples: Mapping[str, Any] = ENSEMBLE_RECIPE,
) -> Experiment:
  """Applies comma-separated variants and locks the config.

  Args:
    config: of `base`.
    argument: what stands after the colon of `--config=configs/cvd.py:small`.
    small_rate: learning rate of all stages but the last in the `small` variant. The
      paper's are for 40,000 to 170,000 samples: with a few hundred they would not leave
      the starting point in 20 epochs.
    small_overrides: path -> value of what `small` changes besides. The multimodal stage
      starts from what the others have learnt, so its rate at least is another.
    of_samples: recipe of the stages whose unit is the sample, except in `published`.

  Raises:
    ValueError: an unknown variant.
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
      # Running statistics of BatchNorm need tens of steps an epoch.
      fields.batch_size = min(fields.batch_size, SMALL_BATCH)
      fields.learning_rate = small_rate
      fields.optimizer = 'adam'
      fields.patience = 3
    config.update_from_flattened_dict(dict(small_overrides))
    # One shape to compile; padded events cost little beside that.
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
    config.update_from_flattened_dict(ablations.end_to_end(config))
  if 'smoke' in variants:
    config.model.size = 'tiny'
    config.refit = False
    config.data.simulated_patients = 150
    config.evaluation.bootstrap = 100
    config.evaluation.baselines = ('logistic_regression',)
    if config.blend:
      config.blend = ('logistic_regression',)
    config.evaluation.robustness = False
    config.evaluation.explained = 0
    config.evaluation.explained_globally = 0
    for fields in config.recipe.values():
      fields.epochs = 1
  return config.lock()
