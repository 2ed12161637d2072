"""Explanations of single predictions, as `POST /predict` returns them.

Values of the request are not repeated: an attribution names its variable and its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

from medm2t_jax.inference.attribution.explainer import Explainer
from medm2t_jax.inference.trained_model import TrainedModel


class VariableAttribution(BaseModel):
  """Sum over all observations of a variable."""

  modality: str
  variable: str
  unit: str
  observed: int
  attribution: float


class EventAttribution(BaseModel):
  """One observation, `hours` (at most 0) before the prediction time."""

  modality: str
  code: str
  variable: str
  hours: float
  attribution: float


class EcgAttribution(BaseModel):
  """The most recent recording: sums over each second, by lead, and its findings."""

  modality: str
  hours: float
  recordings: int
  seconds: dict[str, list[float]]
  findings: dict[str, float]


class CompletenessAnswer(BaseModel):
  """Whether the attributions add up to the output, on its scale."""

  output: float
  baseline: float
  attributed: float
  residual: float
  complete: bool


class ExplainedPatient(BaseModel):
  """Attributions of one output of the model, on the scale of the link (log odds)."""

  explained: str
  completeness: CompletenessAnswer
  variables: list[VariableAttribution]
  events: list[EventAttribution]
  ecg: list[EcgAttribution]
  without: dict[str, float | dict[str, float]]


def explained(
  model: TrainedModel, explainer: Explainer, batch: Mapping[str, Any]
) -> ExplainedPatient:
  """Explains a batch of one patient.

  Args:
    model: the trained model.
    explainer: of this model.
    batch: the first row is the patient, all others are padding; no device axis.
  """
  (found,) = explainer.explain(batch)
  events: list[EventAttribution] = []
  ecg: list[EcgAttribution] = []
  for modality in model.model_config.modalities:
    name = modality.name
    shown = modality.shown(found.arrays[name], found.attributions[name])
    events += [
      EventAttribution(
        modality=name,
        code=each.item.itemid,
        variable=each.item.name,
        hours=each.hours,
        attribution=each.attribution,
      )
      for each in shown.events
    ]
    for course in (*shown.courses, *shown.signals):
      events += [
        EventAttribution(
          modality=name,
          code=course.item.itemid,
          variable=course.item.name,
          hours=float(hour),
          attribution=float(value),
        )
        for hour, value in zip(course.hours, course.attributions, strict=True)
      ]
    if (of := shown.recording) is not None:
      second = np.arange(len(of.attributions)) // int(of.rate)
      sums = [np.bincount(second, lead) for lead in np.asarray(of.attributions).T]
      ecg.append(
        EcgAttribution(
          modality=name,
          hours=of.hours,
          recordings=of.recordings,
          seconds={lead: each.tolist() for lead, each in zip(of.leads, sums, strict=True)},
          findings={finding: attribution for finding, _, attribution in of.findings},
        )
      )
  checked = found.completeness
  return ExplainedPatient(
    explained=found.explained,
    completeness=CompletenessAnswer(
      output=found.output,
      baseline=found.baseline,
      attributed=checked.attributed,
      residual=checked.residual,
      complete=checked.holds,
    ),
    variables=[
      VariableAttribution(
        modality=each.modality,
        variable=each.name,
        unit=each.unit,
        observed=each.observed,
        attribution=each.attribution,
      )
      for each in found.items
    ],
    events=sorted(events, key=lambda each: -abs(each.attribution)),
    ecg=ecg,
    without={
      name: named(model, predictions[0])
      for name, predictions in explainer.without(batch).items()
    },
  )


def named(model: TrainedModel, prediction: Any) -> float | dict[str, float]:
  """A prediction (c) by class or label, or a number ()."""
  classes = model.schema.target.classes
  if not classes:
    return float(prediction)
  return dict(zip(classes, map(float, prediction), strict=True))
