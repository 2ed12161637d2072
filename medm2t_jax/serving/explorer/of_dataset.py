"""Identity and notes of a sample of a prepared data set, for its page."""

from __future__ import annotations

import numpy as np

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.subjects import fingerprint, hash_subject
from data_pipeline.reading.alignment import Alignment
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.serving.explorer.story import Identity


def identity_of(dataset: Dataset, row: int) -> Identity:
  """Sample, subject and prediction time."""
  index = dataset.index
  seconds = np.datetime64(int(index['prediction_time'][row]), 's')
  return Identity(
    (
      ('Sample', str(index['sample_id'][row])),
      ('Subject', str(index['subject_id'][row])),
      ('Prediction time', str(seconds).replace('T', ' ')),
    )
  )


def notes_of(model: TrainedModel, dataset: Dataset, row: int) -> list[str]:
  """What a reader must know: how the data differ from the model's, and training overlap.

  Raises:
    DataError: the data set is of another task.
  """
  alignment = Alignment(model.schema, dataset.as_prepared().schema)
  notes = list(alignment.notes)
  if alignment.absent:
    notes.append(
      f'{len(alignment.absent)} of the model variables are not in this data set.'
    )
  seen = model.seen.get(fingerprint(dataset.subject_key))
  if seen is None:
    notes.append(
      'It is unknown whether the model was trained on this patient: the data set has '
      'another key of subject hashes.'
    )
  elif hash_subject(int(dataset.index['subject_id'][row]), dataset.subject_key) in seen:
    notes.append(
      'The model was trained on this patient, so the prediction looks better than those of '
      'new patients.'
    )
  return notes
