"""FHIR R4: a Bundle of Patient and Observations in, a RiskAssessment out.

Observations become rows of MEDS with the code `LOINC//{code}` and their unit, which a
mapping assigns to variables. Other FHIR fields than those below are ignored.
"""

from __future__ import annotations

import collections
import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.serving.answers import PatientAnswer
from medm2t_jax.serving.refusals import Problem, invalid, problems_of
from medm2t_jax.serving.requests import Event, Name, Number, PatientRequest, Text, names_of

LOINC = 'http://loinc.org'
BIRTH, SEX = 'MEDS_BIRTH', 'Gender//{}'
USED = ('final', 'amended', 'corrected', 'preliminary')
_SYSTEM = 'urn:medm2t_jax:model'
_DATE = (
  r'^[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?'
  r'(Z|[+-][0-9]{2}:[0-9]{2}))?)?)?$'
)
_DAY = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}')
# UCUM annotations say what is counted and do not change values: {beats}/min.
_ANNOTATION = re.compile(r'\{[^{}]*\}')

DateTime = Annotated[str, Field(strict=True, max_length=40, pattern=_DATE)]


class _Resource(BaseModel):
  model_config = ConfigDict(extra='ignore', alias_generator=to_camel, strict=True)


class Coding(_Resource):
  """FHIR Coding: a code of a code system."""

  system: Text | None = None
  code: Name | None = None
  display: Text | None = None


class Concept(_Resource):
  """FHIR CodeableConcept: codings of the same concept, or text."""

  coding: list[Coding] = []
  text: Text | None = None


class Quantity(_Resource):
  """FHIR Quantity."""

  value: Number | None = None
  comparator: Literal['<', '<=', '>=', '>'] | None = None
  unit: Name | None = None
  code: Name | None = None


class Period(_Resource):
  """FHIR Period."""

  start: DateTime | None = None
  end: DateTime | None = None


class Component(_Resource):
  """What an Observation and its components have in common: a code and a value."""

  code: Concept
  value_quantity: Quantity | None = None
  value_codeable_concept: Concept | None = None
  value_string: Text | None = None
  value_integer: Number | None = None


class Observation(Component):
  """FHIR Observation: a measurement, or several as components."""

  resource_type: Literal['Observation']
  status: Name
  effective_date_time: DateTime | None = None
  effective_instant: DateTime | None = None
  effective_period: Period | None = None
  component: list[Component] = []


class Patient(_Resource):
  """FHIR Patient, of which sex and birth date are read."""

  resource_type: Literal['Patient']
  id: Annotated[str, Field(pattern=r'^[A-Za-z0-9.-]{1,64}$')] | None = None
  gender: Name | None = None
  birth_date: DateTime | None = None


class Entry(_Resource):
  """An entry of a Bundle."""

  resource: dict[str, Any] | None = None


class Bundle(_Resource):
  """FHIR Bundle, from which Patient and Observation are read."""

  resource_type: Literal['Bundle']
  entry: list[Entry] = []


_KNOWN = {name for model in (Bundle, Observation, Patient) for name in names_of(model)}
_READ: Mapping[str, type[Patient] | type[Observation]] = {
  'Patient': Patient, 'Observation': Observation
}  # fmt: skip


def resources_of(
  bundle: Any, place: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
  """(place, resource) of a Bundle's entries.

  Args:
    bundle: JSON.
    place: of the Bundle in the request.

  Raises:
    Refused: 422, the JSON is not a Bundle.
  """
  try:
    found = TypeAdapter(Bundle).validate_python(bundle)
  except ValidationError as error:
    raise invalid(_placed(error, Bundle, place)) from None
  for index, entry in enumerate(found.entry):
    if entry.resource is not None:
      yield (*place, 'entry', index, 'resource'), entry.resource


def patient_request(
  resources: Sequence[tuple[tuple[str | int, ...], Any]], prediction_time: str
) -> tuple[PatientRequest, dict[str, int]]:
  """A patient of `POST /predict`, and the number of unused resources by reason.

  Args:
    resources: (place, JSON) of at most one Patient, and of Observations.
    prediction_time: ISO 8601 with an offset.

  Raises:
    Refused: 422, a field violates FHIR, or there are two patients.
  """
  problems: list[Problem] = []
  unused: collections.Counter[str] = collections.Counter()
  patient = Patient.model_validate({'resourceType': 'Patient'})
  events: list[Event] = []
  patients = 0
  for place, resource in resources:
    name = resource.get('resourceType') if isinstance(resource, dict) else None
    model = _READ.get(name) if isinstance(name, str) else None
    if model is None:
      unused['other resources'] += 1
      continue
    try:
      found = model.model_validate(resource)
    except ValidationError as error:
      problems += _placed(error, model, place)
      continue
    if isinstance(found, Patient):
      patient, patients = found, patients + 1
    else:
      events += _rows(found, unused)
  if patients > 1:
    problems.append(Problem(('entry',), 'at most one Patient is allowed'))
  if problems:
    raise invalid(problems)
  if patient.gender:
    events.append({'code': SEX.format(patient.gender.upper()), 'time': None})
  if patient.birth_date and (birth := _time(patient.birth_date, end=False)):
    events.append({'code': BIRTH, 'time': birth})
  request = PatientRequest(
    id=patient.id or 'unknown', prediction_time=prediction_time, events=events
  )
  return request, dict(unused)


def risk_assessment(
  model: TrainedModel,
  answer: PatientAnswer,
  prediction_time: str,
  unused: Mapping[str, int],
) -> dict[str, Any]:
  """The answer as a FHIR R4 RiskAssessment, with probabilities as percentages."""
  target = model.schema.target
  outcome = target.description or model.schema.task
  within = f' {target.horizon}' if target.horizon else ''
  if answer.probabilities is None:
    said = f'{answer.value:.4g} {target.unit}'.strip()
    predictions = [{'outcome': {'text': outcome}, 'rationale': f'predicted: {said}'}]
  else:
    predictions = [
      {
        'outcome': {'text': f'{outcome}: {name}{within}'},
        'probabilityDecimal': round(100 * risk, 4),
        'rationale': f'{percent(risk)} (calibrated risk)',
      }
      for name, risk in answer.probabilities.items()
    ]
  notes = [*answer.warnings]
  notes += [f'not used, {reason}: {count}' for reason, count in sorted(unused.items())]
  notes.append('Not a medical device; for research.')
  return {
    'resourceType': 'RiskAssessment',
    'status': 'final',
    'method': {
      'coding': [{'system': _SYSTEM, 'code': model.schema.task, 'version': model.version}],
      'text': f'medm2t_jax, model {model.version}',
    },
    'subject': {'reference': f'Patient/{answer.id}'},
    'occurrenceDateTime': prediction_time,
    'prediction': predictions,
    'note': [{'text': text} for text in notes],
  }


def percent(risk: float) -> str:
  """A risk in words."""
  return f'{100 * risk:.2g} %' if risk < 0.1 else f'{100 * risk:.0f} %'


def _rows(observation: Observation, unused: collections.Counter[str]) -> list[Event]:
  if observation.status not in USED:
    known = ('entered-in-error', 'cancelled', 'registered', 'unknown')
    status = observation.status if observation.status in known else 'other'
    unused[f'status {status}'] += 1
    return []
  period = observation.effective_period or Period()
  text = (
    observation.effective_date_time
    or observation.effective_instant
    or period.end
    or period.start
  )
  time = _time(text, end=True) if text else None
  if time is None:
    unused['no time'] += 1
    return []
  rows = []
  for part in (observation, *observation.component):
    row = _row(part, time)
    if row is not None:
      rows.append(row)
    elif part is not observation or not observation.component:
      loinc = _loinc(part)
      unused['no value' if loinc else 'no LOINC code'] += 1
  return rows


def _row(part: Component, time: str) -> Event | None:
  code = _loinc(part)
  if code is None:
    return None
  row: Event = {'code': f'LOINC//{code}', 'time': time}
  quantity, concept = part.value_quantity, part.value_codeable_concept
  if quantity is not None and quantity.value is not None:
    unit = quantity.code or quantity.unit or ''
    row['unit'] = _ANNOTATION.sub('', unit).strip() or unit or None
    if quantity.comparator:
      row['text_value'] = f'{quantity.comparator}{quantity.value:g}'
    else:
      row['numeric_value'] = quantity.value
  elif concept is not None:
    names = (concept.text, *(coding.display for coding in concept.coding))
    row['text_value'] = next((name for name in names if name), None)
  elif part.value_string is not None:
    row['text_value'] = part.value_string
  elif part.value_integer is not None:
    row['numeric_value'] = part.value_integer
  has_value = row.get('numeric_value') is not None or row.get('text_value') is not None
  return row if has_value else None


def _loinc(part: Component) -> str | None:
  codes = (each.code for each in part.code.coding if each.system == LOINC)
  return next((code for code in codes if code), None)


def _time(text: str, *, end: bool) -> str | None:
  """ISO 8601 of a FHIR time, of a day its end or beginning; None if it has no day."""
  if 'T' in text:
    return text
  if not _DAY.fullmatch(text):
    return None
  return f'{text}T23:59:59.999999Z' if end else f'{text}T00:00:00Z'


def now() -> str:
  """The current time, ISO 8601 in UTC."""
  return dt.datetime.now(dt.UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')


def _placed(
  error: ValidationError, model: type[BaseModel], place: tuple[str | int, ...]
) -> list[Problem]:
  found = problems_of(error, model, _KNOWN)
  return [Problem((*place, *each.place), each.message) for each in found]
