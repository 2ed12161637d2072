"""CDS Hooks 2.0: the model as a decision support service for a record system.

https://cds-hooks.hl7.org/2.0/: the record system sends the resources that `prefetch` lists
and shows the card.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.report.text import shortened
from medm2t_jax.serving.answers import PatientAnswer
from medm2t_jax.serving.hl7 import fhir
from medm2t_jax.serving.requests import Name

HOOK = 'patient-view'
MOST_SUMMARY = 139  # the specification requires fewer than 140 characters
_LABEL = 'medm2t_jax'


class HookContext(BaseModel):
  """Context of the hook `patient-view`; other fields are ignored."""

  model_config = ConfigDict(extra='ignore', alias_generator=to_camel)

  patient_id: Annotated[str, Field(strict=True, pattern=r'^[A-Za-z0-9.-]{1,64}$')]


class HookRequest(BaseModel):
  """The request of a record system."""

  model_config = ConfigDict(extra='ignore', alias_generator=to_camel)

  hook: Name
  hook_instance: Name
  context: HookContext
  prefetch: dict[str, Any] = {}


def service_id(model: TrainedModel) -> str:
  """Identifier of the only service."""
  return f'medm2t-{model.schema.task.replace("_", "-")}'


def services(model: TrainedModel) -> dict[str, Any]:
  """The answer of `GET /cds-services`."""
  target = model.schema.target
  what = f'{target.description or model.schema.task} {target.horizon}'.strip()
  hours = model.schema.observation_hours
  since = f', of the last {hours:g} hours' if hours else ''
  return {
    'services': [
      {
        'hook': HOOK,
        'id': service_id(model),
        'title': f'Predicted: {what}'[:MOST_SUMMARY],
        'description': f'{what}, from laboratory values and vital signs{since}. Not a '
        'medical device.',
        'prefetch': {
          'patient': 'Patient/{{context.patientId}}',
          'observations': 'Observation?patient={{context.patientId}}'
          '&category=laboratory,vital-signs&_sort=-date&_count=1000',
        },
      }
    ]
  }


def resources_of(
  request: HookRequest,
) -> list[tuple[tuple[str | int, ...], Any]]:
  """Patient and Observations of a request's prefetch.

  Raises:
    Refused: 422, the prefetch holds no Bundle.
  """
  found: list[tuple[tuple[str | int, ...], Any]] = []
  patient = request.prefetch.get('patient')
  if patient is not None:
    found.append((('prefetch', 'patient'), patient))
  observations = request.prefetch.get('observations')
  if observations is not None:
    found += fhir.resources_of(observations, ('prefetch', 'observations'))
  return found


def cards(
  model: TrainedModel, answer: PatientAnswer, unused: dict[str, int]
) -> dict[str, Any]:
  """The card of a prediction; no card if nothing of the patient was found."""
  if not answer.modalities:
    return {'cards': []}
  target = model.schema.target
  what = target.description or model.schema.task
  within = f' {target.horizon}' if target.horizon else ''
  if answer.probabilities is None:
    said = {target.unit: f'{answer.value:.3g} {target.unit}'}
    summary = f'{what}: {answer.value:.3g} {target.unit}{within}'
  else:
    said = {name: fhir.percent(risk) for name, risk in answer.probabilities.items()}
    # With two classes, the second is the event.
    shown = list(said)[1:] if target.kind == 'binary' else list(said)
    risks = ', '.join(f'{name} {said[name]}' for name in shown)
    summary = f'{what}: {risks}{within}'
  lines = [f'- {name}: {text}' for name, text in said.items()]
  lines += [f'- {text}' for text in answer.warnings]
  lines += [f'- not used, {reason}: {count}' for reason, count in sorted(unused.items())]
  lines.append(f'\nModel {model.version}. Not a medical device.')
  return {
    'cards': [
      {
        'summary': shortened(summary, MOST_SUMMARY),
        'indicator': 'info',
        'source': {'label': _LABEL},
        'detail': '\n'.join(lines),
      }
    ]
  }
