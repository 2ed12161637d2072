"""The answers of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from data_pipeline.format.schema import Schema
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.serving.batching import PredictedPatient
from medm2t_jax.serving.explaining import ExplainedPatient, named

LEAST_COVERAGE = 0.5  # below it there is a warning


class PatientAnswer(BaseModel):
  """The prediction of one patient."""

  id: str
  probabilities: dict[str, float] | None = Field(
    None,
    description='Calibrated risk of each class or label; null for a numeric target.',
  )
  value: float | None = Field(None, description='The predicted number, in `unit`.')
  unit: str | None = None
  modalities: list[str] = Field(description='Modalities for which the patient has data.')
  coverage: dict[str, Any] = Field(
    description='Rows of the request that were used, ignored, dropped and repaired, each '
    'with its reason; and `share`, of the variables in the training samples.'
  )
  warnings: list[str]
  explanation: ExplainedPatient | None = None


class PredictAnswer(BaseModel):
  """Predictions, in the order of the request."""

  task: str
  version: str = Field(description='Of the bundle.')
  predicted: str
  horizon: str
  condition: str = Field(description='The condition that the prediction assumes.')
  patients: list[PatientAnswer]


class VariableOfModel(BaseModel):
  """A variable that the model reads."""

  code: str
  name: str
  unit: str
  low: float | None = Field(description='Values below it are dropped.')
  high: float | None
  categories: list[str]
  request_codes: list[str] = Field(description='Event codes that become this variable.')


class ModelAnswer(BaseModel):
  """The model."""

  task: str
  version: str
  source: str
  kind: str
  classes: list[str]
  unit: str
  predicted: str
  horizon: str
  condition: str
  observation_hours: float | None
  members: int
  modalities: dict[str, list[VariableOfModel]]
  static_columns: dict[str, list[str]] = Field(
    description='Columns of `static` in a request, with categories; none for a number.'
  )
  limits: dict[str, Any]
  card: str


class HealthAnswer(BaseModel):
  """Whether the service can predict."""

  status: str
  version: str


class ErrorOfRequest(BaseModel):
  """One error; values of the request are never repeated."""

  field: str
  message: str
  patient: int | None = None
  id: str | None = None
  event: int | None = None


class ErrorAnswer(BaseModel):
  """Why a request was not answered."""

  detail: str
  errors: list[ErrorOfRequest] = []


def predict_answer(
  model: TrainedModel,
  ids: Sequence[str],
  predicted: Sequence[PredictedPatient],
  warnings: Sequence[Sequence[str]],
) -> PredictAnswer:
  """The answer to a prediction request.

  Args:
    model: that predicted.
    ids: of the patients.
    predicted: of the patients.
    warnings: for each patient, in addition to those that follow from `predicted`.
  """
  target = model.schema.target
  patients = []
  for identifier, each, own in zip(ids, predicted, warnings, strict=True):
    share = round(coverage_share(model, each), 4)
    said = named(model, each.prediction)
    number = None if isinstance(said, dict) else said
    patients.append(
      PatientAnswer(
        id=identifier,
        probabilities=said if isinstance(said, dict) else None,
        value=number,
        unit=target.unit if number is not None else None,
        modalities=[name for name, has in each.present.items() if has],
        coverage={**each.coverage, 'share': share},
        warnings=[*own, *_warnings(model.schema, each, share)],
        explanation=each.explanation,
      )
    )
  return PredictAnswer(
    task=model.schema.task,
    version=model.version,
    predicted=target.description,
    horizon=target.horizon,
    condition=model.schema.condition,
    patients=patients,
  )


def coverage_share(model: TrainedModel, predicted: PredictedPatient) -> float:
  """Share of the variables that an average training sample has, which the patient has."""
  had = have = 0.0
  for name, shares in model.found.items():
    trained = np.asarray(shares)
    had += trained.sum()
    have += trained[np.broadcast_to(predicted.found[name], trained.shape)].sum()
  return float(have / had) if had else 0.0


def _warnings(schema: Schema, predicted: PredictedPatient, share: float) -> list[str]:
  found = []
  if share < LEAST_COVERAGE:
    found.append(
      f'only {share:.0%} of the variables in the training samples were found: the '
      'prediction rests on little data'
    )
  absent = [name for name, has in predicted.present.items() if not has]
  if absent:
    found.append(f'no data for {", ".join(absent)}: predicted without')
  if schema.condition:
    found.append(f'assumes a condition that is not known yet: {schema.condition}')
  return found


def model_answer(
  model: TrainedModel,
  request_codes: Mapping[tuple[str, str], Sequence[str]],
  static_columns: Mapping[str, Sequence[str]],
  limits: Mapping[str, Any],
) -> ModelAnswer:
  """The answer of `GET /model`.

  Args:
    model: the trained model.
    request_codes: (modality, code of a variable) -> event codes.
    static_columns: code -> categories.
    limits: of the service.
  """
  schema, target = model.schema, model.schema.target
  return ModelAnswer(
    task=schema.task,
    version=model.version,
    source=schema.source,
    kind=target.kind,
    classes=list(target.classes),
    unit=target.unit,
    predicted=target.description,
    horizon=target.horizon,
    condition=schema.condition,
    observation_hours=schema.observation_hours,
    members=len(model.members),
    modalities={
      name: [
        VariableOfModel(
          code=item.itemid,
          name=item.name,
          unit=item.unit,
          low=item.low,
          high=item.high,
          categories=list(item.categories),
          request_codes=list(request_codes.get((name, item.itemid), ())),
        )
        for item in schema.variables(name)
      ]
      for name in schema.names
    },
    static_columns={code: list(levels) for code, levels in static_columns.items()},
    limits=dict(limits),
    card=model.card,
  )
