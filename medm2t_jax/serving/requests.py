"""The requests of `POST /predict`, and their conversion to rows.

Values are checked strictly: a number must not be text, and a time needs date and time.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NotRequired

import numpy as np
import pyarrow as pa
from pydantic import (
  BaseModel,
  ConfigDict,
  Field,
  PlainValidator,
  WithJsonSchema,
  model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from data_pipeline.ecg.reading import ECG_LEADS
from data_pipeline.format.schema import Schema
from data_pipeline.sources.meds.patients import Patients, Recording
from data_pipeline.sources.meds.patients.recordings import ECG_MEASUREMENTS
from medm2t_jax.serving import times
from medm2t_jax.serving.refusals import Problem, invalid, nearest, too_many
from medm2t_jax.serving.service_options import ServiceOptions

_MOST = float(np.finfo(np.float32).max)  # rows are float32

Time = Annotated[str, Field(strict=True, max_length=40, pattern=times.PATTERN)]
Number = Annotated[float, Field(strict=True, ge=-_MOST, le=_MOST, allow_inf_nan=False)]
# No control characters: one of them separates code and unit if a mapping has units by row.
Name = Annotated[str, Field(strict=True, max_length=256, pattern=r'^[^\x00-\x1f]*$')]
Text = Annotated[str, Field(strict=True, max_length=4096, pattern=r'^[^\x00]*$')]
_IDENTIFIER = r'^[A-Za-z0-9._:@-]{1,64}$'
Identifier = Annotated[str, Field(strict=True, pattern=_IDENTIFIER)]


def _samples(given: Any) -> np.ndarray:
  """Signal samples as float64 (n); null is a missing sample."""
  if not isinstance(given, list) or not {*map(type, given)} <= {int, float, type(None)}:
    raise PydanticCustomError('samples', 'must be a list of numbers')
  try:
    return np.array(given, np.float64)
  except OverflowError:
    raise PydanticCustomError('samples', 'must be numbers that float32 can hold') from None


def _bytes(given: Any) -> bytes:
  try:
    return base64.b64decode(given, validate=True)
  except (TypeError, ValueError, binascii.Error):
    raise PydanticCustomError('base64', 'must be a file in base64') from None


Samples = Annotated[
  np.ndarray,
  PlainValidator(_samples),
  WithJsonSchema({'type': 'array', 'items': {'type': ['number', 'null']}}),
]
File = Annotated[
  bytes,
  PlainValidator(_bytes),
  WithJsonSchema({'type': 'string', 'contentEncoding': 'base64'}),
]
Static = Annotated[
  dict[str, Any],
  WithJsonSchema(
    {'type': 'object', 'additionalProperties': {'type': ['number', 'string', 'null']}}
  ),
]


class Event(TypedDict):
  """One row of MEDS."""

  __pydantic_config__ = ConfigDict(extra='forbid')  # pyright: ignore

  code: Annotated[Name, Field(min_length=1)]
  time: NotRequired[Time | None]
  numeric_value: NotRequired[Number | None]
  text_value: NotRequired[Text | None]
  unit: NotRequired[Name | None]


class Ecg(BaseModel):
  """A 12-lead recording: `leads`, `sampling_rate` and `unit`, or `hea` and `dat`."""

  model_config = ConfigDict(extra='forbid', arbitrary_types_allowed=True)

  time: Time
  leads: dict[str, Samples] | None = None
  sampling_rate: Annotated[float, Field(strict=True, gt=0, le=100_000)] | None = None
  unit: Name | None = None
  hea: File | None = None
  dat: File | None = None
  measurements: dict[str, Number] = {}
  report: list[Text] = Field(default=[], max_length=64)

  @model_validator(mode='after')
  def _one_way(self) -> Ecg:
    array = (self.leads, self.sampling_rate, self.unit)
    files = (self.hea, self.dat)
    if [None not in array, None not in files] not in ([True, False], [False, True]) or (
      (any(x is not None for x in array)) and any(x is not None for x in files)
    ):
      raise PydanticCustomError(
        'ecg',
        'must have either leads, sampling_rate and unit, or hea and dat of a WFDB record',
      )
    if self.leads is not None:
      lengths = {len(each) for each in self.leads.values()}
      if len(lengths) != 1 or 0 in lengths:
        raise PydanticCustomError(
          'ecg', 'leads must have the same length, at least one sample'
        )
    return self


class PatientRequest(BaseModel):
  """The data of a patient, and the prediction time."""

  model_config = ConfigDict(extra='forbid')

  id: Identifier
  prediction_time: Time
  events: list[Event] = []
  static: Static = {}
  ecgs: list[Ecg] = []


class PredictRequest(BaseModel):
  """One patient or many."""

  model_config = ConfigDict(extra='forbid')

  patients: list[PatientRequest] = Field(min_length=1)
  explain: Annotated[bool, Field(strict=True)] = False


def is_identifier(text: str) -> bool:
  """Whether a text can be a patient's `id`."""
  return re.fullmatch(_IDENTIFIER, text) is not None


def names_of(model: type[BaseModel]) -> set[str]:
  """All field names of a request model, nested ones included."""
  schema = model.model_json_schema(by_alias=True)
  every = [schema, *schema.get('$defs', {}).values()]
  return {name for one in every for name in one.get('properties', ())}


def static_columns(schema: Schema) -> dict[str, tuple[str, ...]]:
  """Code -> categories (empty for a number) of variables that every sample has once."""
  return {
    item.itemid: item.categories
    for modality in schema.modalities.values()
    if modality.counted is None
    for item in modality.variables
  }


def check(request: PredictRequest, schema: Schema, options: ServiceOptions) -> None:
  """Checks a request against the model's schema and the limits.

  Raises:
    Refused: 422, with everything that is unknown or exceeds a limit.
  """
  found: list[Problem] = []
  patients = request.patients
  most = options.max_explained if request.explain else options.max_patients
  if len(patients) > most:
    raise invalid([too_many(('patients',), len(patients), most)])
  columns, first = static_columns(schema), {}
  for index, patient in enumerate(patients):
    place = ('patients', index)
    of = lambda name, message, place=place, index=index: Problem(
      (*place, *name), message, index
    )
    if first.setdefault(patient.id, index) != index:
      found.append(of(('id',), f'must differ from that of patients[{first[patient.id]}]'))
    for name, count, limit in (
      ('events', len(patient.events), options.max_events),
      ('ecgs', len(patient.ecgs), options.max_recordings),
    ):
      if count > limit:
        found.append(of((name,), f'{count} are given; at most {limit} are allowed'))
    for number, ecg in enumerate(patient.ecgs):
      problems = _of_ecg(ecg, options.max_samples)
      found += [of(('ecgs', number, name), message) for name, message in problems]
    for code, value in patient.static.items():
      if code not in columns:
        found.append(of(('static',), f'unknown column: {nearest(code, columns)}'))
      elif message := _of_static(value, columns[code]):
        found.append(of(('static', code), message))
  if found:
    raise invalid(with_ids(found, patients))


def with_ids(
  problems: Sequence[Problem], patients: Sequence[PatientRequest]
) -> list[Problem]:
  """The problems with the ids of their patients."""
  return [
    Problem(
      each.place,
      each.message,
      each.patient,
      None if each.patient is None else patients[each.patient].id,
      each.event,
    )
    for each in problems
  ]


def patients_of(requests: Sequence[PatientRequest]) -> Patients:
  """The rows, recordings and times of patients.

  Raises:
    Refused: 422, a day or time does not exist.
  """
  events = [event for patient in requests for event in patient.events]
  counts = [len(patient.events) for patient in requests]
  try:
    of_events = times.instants([event.get('time') for event in events])
    predicted = times.instants([patient.prediction_time for patient in requests])
    recordings = [
      [_recording(ecg, time) for ecg, time in zip(ecgs, of_ecgs, strict=True)]
      for ecgs, of_ecgs in (
        (patient.ecgs, _integers(times.instants([ecg.time for ecg in patient.ecgs])))
        for patient in requests
      )
    ]
  except pa.ArrowInvalid:
    raise invalid(with_ids([*_impossible_times(requests)], requests)) from None
  table = {
    'patient': pa.array(np.repeat(np.arange(len(counts)), counts), pa.int64()),
    'time': of_events,
    'code': pa.array([event['code'] for event in events], pa.string()),
  }
  for name, kind in (
    ('numeric_value', pa.float32()),
    ('text_value', pa.string()),
    ('unit', pa.string()),
  ):
    table[name] = pa.array([event.get(name) for event in events], kind)
  return Patients(
    events=pa.table(table),
    prediction_time=_integers(predicted),
    recordings=recordings,
    static=[patient.static for patient in requests],
  )


def joined(parts: Sequence[Patients]) -> Patients:
  """The patients of several requests, one after the other."""
  if len(parts) == 1:
    return parts[0]
  tables, before = [], 0
  for part in parts:
    owner = part.events['patient'].to_numpy() + before
    tables.append(part.events.set_column(0, 'patient', pa.array(owner)))
    before += len(part.prediction_time)
  return Patients(
    events=pa.concat_tables(tables),
    prediction_time=np.concatenate([part.prediction_time for part in parts]),
    recordings=[each for part in parts for each in part.recordings],
    static=[each for part in parts for each in part.static],
  )


def without_offset(patient: PatientRequest) -> bool:
  """Whether any time of the patient has no offset."""
  texts = [patient.prediction_time, *(ecg.time for ecg in patient.ecgs)]
  return times.without_offset([*texts, *(event.get('time') for event in patient.events)])


def _integers(instants: pa.Array) -> np.ndarray:
  return instants.cast(pa.int64()).to_numpy()


def _impossible_times(requests: Sequence[PatientRequest]) -> Iterator[Problem]:
  """Every time of the requests that is no day or time of a calendar."""
  for index, patient in enumerate(requests):
    given = [
      *(
        (('events', row, 'time'), each.get('time'))
        for row, each in enumerate(patient.events)
      ),
      (('prediction_time',), patient.prediction_time),
      *((('ecgs', row, 'time'), ecg.time) for row, ecg in enumerate(patient.ecgs)),
    ]
    for place, text in given:
      if text is not None and times.microseconds(text) is None:
        event = place[1] if place[0] == 'events' else None
        place = ('patients', index, *place)
        yield Problem(place, 'no day or time of a calendar', index, event=event)


def _recording(ecg: Ecg, time: int) -> Recording:
  described = {'measurements': ecg.measurements, 'report': tuple(ecg.report)}
  if ecg.leads is None:
    assert ecg.hea is not None and ecg.dat is not None
    return Recording(time=time, header=ecg.hea, data=ecg.dat, **described)
  assert ecg.sampling_rate is not None and ecg.unit is not None
  return Recording(
    time=time,
    signal=np.stack([*ecg.leads.values()], axis=1),
    sampling_rate=ecg.sampling_rate,
    unit=ecg.unit,
    leads=tuple(ecg.leads),
    **described,
  )


def _of_ecg(ecg: Ecg, most: int) -> list[tuple[str, str]]:
  """(field, what is allowed there) for every error of a recording."""
  found = []
  leads = ecg.leads or {}
  samples = sum(map(len, leads.values())) if leads else len(ecg.dat or b'') // 2
  if samples > most:
    found.append(('leads', f'{samples} samples; at most {most} are allowed'))
  names = {lead.lower() for lead in ECG_LEADS}
  for name in leads:
    if name.lower() not in names:
      found.append(('leads', f'unknown lead: {nearest(name, ECG_LEADS)}'))
  for name in ecg.measurements:
    if name not in ECG_MEASUREMENTS:
      message = f'unknown measurement: {nearest(name, ECG_MEASUREMENTS)}'
      found.append(('measurements', message))
  return found


def _of_static(value: Any, categories: Sequence[str]) -> str:
  """What is allowed in place of a value; '' if the value is allowed."""
  if value is None:
    return ''
  if categories:
    return '' if value in categories else f'must be one of {", ".join(categories)}'
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return '' if number and abs(value) <= _MOST else 'a number'


KNOWN: Mapping[str, Any] = dict.fromkeys((*ECG_LEADS, *ECG_MEASUREMENTS))
