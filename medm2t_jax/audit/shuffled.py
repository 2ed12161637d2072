"""Check: nothing is learnt from shuffled labels.

Trains one cheap stage briefly, with the whole engine, on labels that are permuted among the
subjects of each split, in memory. If it can still predict the test labels, information
reached the model through the pipeline.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from medm2t_jax import targets
from medm2t_jax.audit.check import Check
from medm2t_jax.audit.scan import SPLITS
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.experiment import Experiment
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, was_skipped
from medm2t_jax.training import prediction, steps, train
from medm2t_jax.training.starting import recipe_of

# A few hundred steps: one epoch of large data, some of small.
STEPS, EPOCHS = 200, 8
LEAST_RATE = 5e-3  # learning rates of long trainings would learn nothing in this time
PERMUTATIONS, AT_ONCE = 2000, 100
TAILS = (0.0005, 0.9995)  # of the null distribution: one honest run in a thousand fails


def check(fold: Run) -> Check:
  """Trains on shuffled labels; measures AUROC, or for numbers the rank correlation."""
  stage = fold.dataset.schema.names[0]  # static, if there is one
  name = f'shuffled labels, fold {fold.fold}'
  with tempfile.TemporaryDirectory(prefix='medm2t_audit_') as folder:
    shuffled, labels = shuffled_run(fold, stage, Path(folder))
    train.train_stage(shuffled, stage)
    if was_skipped(shuffled, stage):
      return Check(name, False, None, f'not tested: no sample to train {stage} on')
    variables, _ = restore_best(shuffled, stage)
  predictor = steps.predictor(shuffled.model, stage, variables)
  modalities = shuffled.modalities_of(stage)
  plan = shuffled.plan('test', modalities, fold.config.evaluation.batch_size, require=stage)
  rows, predictions = prediction.predict(shuffled, stage, predictor, plan, 'shuffled')
  label, subject = labels[rows], fold.dataset.index['subject_id'][rows]
  kind = targets.of(fold.dataset.schema.target)
  score, true = predictions['all'], label
  if kind.scored:
    score, true = score[:, list(kind.scored)], kind.is_true(label)[:, list(kind.scored)]
  columns = np.atleast_2d(true.T)
  if not any(len(np.unique(each[~np.isnan(each)])) > 1 for each in columns):
    return Check(name, False, None, 'not tested: all test samples have the same label')
  measured = float(association(score, true[np.newaxis])[0])
  generator = np.random.default_rng(fold.config.seed)
  null = np.concatenate(
    [
      association(
        score,
        np.stack([permute_by_subject(true, subject, generator) for _ in range(AT_ONCE)]),
      )
      for _ in range(PERMUTATIONS // AT_ONCE)
    ]
  )
  low, high = np.quantile(null, TAILS)
  metric = 'AUROC' if kind.scored else 'rank correlation'
  return Check(
    name,
    bool(low <= measured <= high),
    measured,
    f'trained on shuffled labels, {stage} reaches {metric} {measured:.3f} on {len(rows)} '
    f'test samples; by chance it lies between {low:.3f} and {high:.3f}',
  )


def permute_by_subject(
  label: np.ndarray, subject: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
  """Permutes labels (n,) among subjects (n,); labels of one subject stay together."""
  order = np.argsort(subject, kind='stable')
  _, starts, counts = np.unique(subject[order], return_index=True, return_counts=True)
  permuted = generator.permutation(len(starts))
  ends = np.cumsum(counts[permuted])
  shift = np.repeat(starts[permuted] - (ends - counts[permuted]), counts[permuted])
  result = np.empty_like(label)
  result[order] = label[order][np.arange(len(label)) + shift]
  return result


def association(score: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """AUROC of every labelling, mean over classes or labels; for numbers rank correlation.

  Args:
    score: predictions: probabilities (n c) or numbers (n,).
    labels: 1 if a class or label is true, else 0, NaN if unknown (r n c); or numbers (r n).
      Classes or labels that are the same in all samples do not count.

  Returns:
    float64 (r,).
  """
  if score.ndim == 1:
    if np.ptp(score) == 0:
      return np.zeros(len(labels))
    rank, others = stats.rankdata(score), stats.rankdata(labels, axis=1)
    return np.array([np.corrcoef(rank, each)[0, 1] for each in others])
  # A sample is ranked as a positive and as a negative; its label weights one of them.
  positive = np.repeat([True, False], len(score))
  areas = []
  for of_class, true in zip(score.T, np.moveaxis(labels, 2, 0), strict=True):
    weights = np.concatenate([true == 1, true == 0], axis=1).astype(np.float64)
    areas.append(Ranking(np.tile(of_class, 2), positive).curves(weights).auroc())
  return np.nanmean(areas, axis=0)


def shuffled_run(run: Run, stage: str, workdir: Path) -> tuple[Run, np.ndarray]:
  """A run of one short stage, with labels permuted within each split.

  Args:
    run: whose data set, fold and experiment are used.
    stage: with the name of a modality: nothing else is read, not even to fit statistics.
    workdir: of the new run.

  Returns:
    The run, and the label of every row of the index as its batches have it: float32.
  """
  index = run.dataset.index
  label = index['label'].astype(np.float32)
  generator = np.random.default_rng((run.config.seed, run.fold))
  for split in SPLITS:
    rows = run.splits.rows(split)
    label[rows] = permute_by_subject(label[rows], index['subject_id'][rows], generator)

  def relabelled(batch: Batch) -> Batch:
    row = batch['row']
    valid = row.reshape(*row.shape, *(1,) * (label.ndim - 1)) >= 0
    # Unknown entries of a vector are -1 in a batch.
    labels_of_rows = np.nan_to_num(label[row], nan=-1.0)
    return {**batch, 'label': np.where(valid, labels_of_rows, np.float32(0))}

  dataset = dataclasses.replace(run.dataset, schema=run.dataset.schema.only([stage]))
  made = Run(_short(run, stage), dataset, run.fold, workdir, change=relabelled)
  return made, label


def _short(fold: Run, stage: str) -> Experiment:
  """The experiment with a short recipe for the stage."""
  recipe = recipe_of(fold, stage)
  size = recipe.batch_size
  plan = fold.plan('train', fold.modalities_of(stage), size, require=stage)
  short = dataclasses.replace(
    recipe,
    epochs=min(EPOCHS, max(1, STEPS // max(1, len(plan)))),
    learning_rate=max(recipe.learning_rate, LEAST_RATE),
    patience=EPOCHS,
    select_by='loss',
    starts_from=(),
    frozen=(),
  )
  return fold.config.changed(
    {f'recipe.{stage}': short, 'refit': False, 'training.tensorboard': False}
  )
