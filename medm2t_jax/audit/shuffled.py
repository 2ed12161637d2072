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

from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.audit.check import Check
from medm2t_jax.audit.ranks import auroc
from medm2t_jax.audit.scan import SPLITS
from medm2t_jax.experiment import Experiment
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, was_skipped
from medm2t_jax.training import prediction, steps, train
from medm2t_jax.training.starting import recipe_of

# A few hundred steps: one epoch of large data, some of small.
STEPS, EPOCHS = 200, 8
LEAST_RATE = 5e-3  # learning rates of long trainings would learn nothing in this time
PERMUTATIONS = 2000
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
  if not (label != label[0]).any():
    return Check(name, False, None, 'not tested: all test samples have the same label')
  score = _ranked(predictions['all'], fold.dataset.schema.target)
  true = _to_rank(label, fold.dataset.schema.target)
  measured = association(score, true)
  generator = np.random.default_rng(fold.config.seed)
  null = [
    association(score, permute_by_subject(true, subject, generator))
    for _ in range(PERMUTATIONS)
  ]
  low, high = np.quantile(null, TAILS)
  kind = 'AUROC' if predictions['all'].ndim == 2 else 'rank correlation'
  return Check(
    name,
    bool(low <= measured <= high),
    measured,
    f'trained on shuffled labels, {stage} reaches {kind} {measured:.3f} on {len(rows)} '
    f'test samples; by chance it lies between {low:.3f} and {high:.3f}',
  )


def permute_by_subject(
  label: np.ndarray, subject: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
  """Permutes labels (n,) among subjects (n,); labels of one subject stay together."""
  order = np.argsort(subject, kind='stable')
  _, starts, counts = np.unique(subject[order], return_index=True, return_counts=True)
  dealt = generator.permutation(len(starts))
  ends = np.cumsum(counts[dealt])
  shift = np.repeat(starts[dealt] - (ends - counts[dealt]), counts[dealt])
  result = np.empty_like(label)
  result[order] = label[order][np.arange(len(label)) + shift]
  return result


def association(rank: np.ndarray, label: np.ndarray) -> float:
  """Mean AUROC over classes or labels (n c), or of the second of two classes.

  For numbers, the rank correlation.

  Args:
    rank: of the predictions: probabilities (n c) or numbers (n,).
    label: numbers (n,); or 1 if a class or label is true, else 0, NaN if unknown (n c).
      Classes or labels that are the same in all samples do not count.
  """
  if rank.ndim == 1:
    return float(np.corrcoef(rank, stats.rankdata(label))[0, 1]) if np.ptp(rank) else 0.0
  found = []
  for column, true in zip(rank.T, label.T, strict=True):
    known = ~np.isnan(true)
    if len(np.unique(true[known])) == 2:
      of_known = column if known.all() else stats.rankdata(column[known])
      found.append(auroc(of_known, true[known] == 1))
  return float(np.mean(found))


def _ranked(predictions: np.ndarray, target: Target) -> np.ndarray:
  """Ranks of all predictions with a metric: (n c) or (n,)."""
  scored = list(targets.of(target).scored)
  return stats.rankdata(predictions[:, scored] if scored else predictions, axis=0)


def _to_rank(label: np.ndarray, target: Target) -> np.ndarray:
  """Labels as `association` takes them."""
  kind = targets.of(target)
  return kind.is_true(label)[:, list(kind.scored)] if kind.scored else label


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
    dealt = np.nan_to_num(label[row], nan=-1.0)
    return {**batch, 'label': np.where(valid, dealt, np.float32(0))}

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
