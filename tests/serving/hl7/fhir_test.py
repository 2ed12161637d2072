"""FHIR and CDS Hooks: their structures in, their structures out."""

from __future__ import annotations

import dataclasses
import datetime as dt

import jsonschema
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.riskassessment import RiskAssessment

from data_pipeline.format.schema import Target
from medm2t_jax.serving.answers import PatientAnswer
from medm2t_jax.serving.hl7 import cds_hooks, fhir
from tests.support import small_bundle

WHEN = '2150-03-02T10:00:00Z'
CREATININE, LACTATE, HEART_RATE = '2160-0', '32693-4', '8867-4'
UCUM = 'http://unitsofmeasure.org'
# Cards of CDS Hooks 2.0 (cds-hooks.hl7.org/2.0/#cds-service-response), as JSON Schema.
CARDS = {
  'type': 'object',
  'required': ['cards'],
  'additionalProperties': False,
  'properties': {
    'cards': {
      'type': 'array',
      'items': {
        'type': 'object',
        'required': ['summary', 'indicator', 'source'],
        'additionalProperties': False,
        'properties': {
          'uuid': {'type': 'string'},
          'summary': {'type': 'string', 'minLength': 1, 'maxLength': 139},
          'detail': {'type': 'string'},
          'indicator': {'enum': ['info', 'warning', 'critical']},
          'source': {
            'type': 'object',
            'required': ['label'],
            'properties': {
              'label': {'type': 'string'},
              'url': {'type': 'string', 'format': 'uri'},
            },
          },
        },
      },
    }
  },
}
SERVICES = {
  'type': 'object',
  'required': ['services'],
  'properties': {
    'services': {
      'type': 'array',
      'items': {
        'type': 'object',
        'required': ['hook', 'description', 'id'],
        'properties': {
          **{name: {'type': 'string'} for name in ('hook', 'title', 'description', 'id')},
          'prefetch': {'type': 'object', 'additionalProperties': {'type': 'string'}},
        },
      },
    }
  },
}


def quantity(value, unit='mg/dL', **fields):
  return {'valueQuantity': {'value': value, 'unit': unit, 'system': UCUM, 'code': unit}
          | fields}  # fmt: skip


def concept(code, system=fhir.LOINC):
  return {'coding': [{'system': system, 'code': code}]}


def observation(code=CREATININE, value=None, time='2150-03-02T09:30:00Z', **fields):
  return {
    'resourceType': 'Observation',
    'status': 'final',
    'code': concept(code),
    'effectiveDateTime': time,
    **(quantity(1.4) if value is None else value),
  } | fields


PATIENT = {
  'resourceType': 'Patient', 'id': 'p-1', 'gender': 'female', 'birthDate': '2080-05-01'
}  # fmt: skip


def bundle(*resources):
  made = {
    'resourceType': 'Bundle',
    'type': 'collection',
    'entry': [{'resource': each} for each in resources],
  }
  Bundle.model_validate(made)  # what the tests send is FHIR
  return made


def assess(client, *resources, when=WHEN):
  return client.post(
    '/fhir/RiskAssessment', params={'prediction_time': when}, json=bundle(*resources)
  )


def found(client, *resources):
  answer = assess(client, *resources)
  assert answer.status_code == 200, answer.text
  return answer.json()


def notes(assessment):
  return [note['text'] for note in assessment['note']]


def died(assessment):
  (of,) = (
    one['probabilityDecimal']
    for one in assessment['prediction']
    if 'died' in one['outcome']['text']
  )
  return of


def test_a_bundle_becomes_a_risk_assessment(service, model):
  answer = assess(service, PATIENT, observation())
  assert answer.headers['content-type'].startswith('application/fhir+json')
  made = answer.json()
  RiskAssessment.model_validate(made)
  assert made['subject']['reference'] == 'Patient/p-1'
  assert made['occurrenceDateTime'] == WHEN
  assert made['method']['coding'][0]['version'] == model.version
  total = sum(one['probabilityDecimal'] for one in made['prediction'])
  assert total == pytest.approx(100, abs=1e-3)  # percentages, as FHIR has them
  assert 'before discharge' in made['prediction'][1]['outcome']['text']


def test_it_is_the_prediction_of_the_same_rows(service):
  rows = [
    {'code': f'LAB//50912//{unit}', 'time': '2150-03-02T09:30:00Z', 'numeric_value': value}
    for unit, value in (('mg/dL', 1.4), ('mg/dL', 2.5))
  ]
  body = {'patients': [{'id': 'a', 'prediction_time': WHEN, 'events': rows}]}
  expected = service.post('/predict', json=body).json()['patients'][0]['probabilities']
  same = found(service, observation(), observation(value=quantity(2.5)))
  assert died(same) == pytest.approx(100 * expected['died'], abs=1e-3)
  assert died(same) != died(found(service, observation()))


def test_units_are_read_as_ucum(service):
  as_moles = observation('14682-9', quantity(123.76, 'umol/L'))
  assert died(found(service, observation())) != died(found(service, PATIENT))
  converted = found(service, as_moles)
  assert died(converted) == pytest.approx(died(found(service, observation())), abs=1e-3)


def test_an_annotation_of_ucum_changes_no_unit():
  rows, _ = fhir.patient_request(
    [((), observation(HEART_RATE, quantity(80, '{beats}/min')))], WHEN
  )
  assert rows.events[0].get('unit') == '/min'
  rows, _ = fhir.patient_request([((), observation(value=quantity(1, '{ratio}')))], WHEN)
  assert rows.events[0].get('unit') == '{ratio}'


def test_what_is_not_to_be_used_is_counted(service):
  plain = found(service, PATIENT, observation())
  more = found(
    service,
    PATIENT,
    observation(),
    observation(status='entered-in-error'),
    observation(status='cancelled'),
    observation(status='cancelled'),
    observation() | {'code': concept('x', 'http://local')},
    observation(value={}),
    observation(value={'valueQuantity': {'unit': 'mg/dL'}}),
    {'resourceType': 'Encounter', 'status': 'finished', 'class': {'code': 'IMP'}},
    {key: value for key, value in observation().items() if key != 'effectiveDateTime'},
  )  # fmt: skip
  assert died(more) == died(plain)
  assert {text for text in notes(more) if text.startswith('not used')} == {
    'not used, status entered-in-error: 1',
    'not used, status cancelled: 2',
    'not used, no LOINC code: 1',
    'not used, no value: 2',
    'not used, other resources: 1',
    'not used, no time: 1',
  }


def test_components_texts_and_bounds_become_rows():
  pressure = observation('85354-9', {}, component=[
    {'code': concept('8480-6'), **quantity(120, 'mm[Hg]')},
    {'code': concept('8462-4'), **quantity(80, 'mm[Hg]')},
  ])  # fmt: skip
  request, unused = fhir.patient_request(
    [
      (('a',), pressure),
      (('b',), observation(value=quantity(0.01, 'ng/mL', comparator='<'))),
      (('c',), observation(value={'valueCodeableConcept': {'text': 'Positive'}})),
      (('d',), observation(value={'valueString': 'NEG'}, time='2150-03-02')),
      (('e',), observation(value={'valueInteger': 3})),
    ],
    WHEN,
  )
  assert not unused
  told = [
    (row['code'], row.get('numeric_value'), row.get('text_value')) for row in request.events
  ]
  assert told == [
    ('LOINC//8480-6', 120, None),
    ('LOINC//8462-4', 80, None),
    ('LOINC//2160-0', None, '<0.01'),
    ('LOINC//2160-0', None, 'Positive'),
    ('LOINC//2160-0', None, 'NEG'),
    ('LOINC//2160-0', 3, None),
  ]
  # A day without a time is known at its end.
  assert request.events[4].get('time') == '2150-03-02T23:59:59.999999Z'


def test_an_observation_of_later_is_not_used(service):
  late = observation(value=quantity(9.0), time='2150-03-02T11:00:00Z')
  assert died(found(service, observation(), late)) == died(found(service, observation()))


@pytest.mark.parametrize(
  ('change', 'field'),
  [
    ({'valueQuantity': {'value': 'SECRET'}}, 'entry[0].resource.valueQuantity.value'),
    ({'effectiveDateTime': 'SECRET'}, 'entry[0].resource.effectiveDateTime'),
    ({'code': 'SECRET'}, 'entry[0].resource.code'),
    ({'component': {'SECRET': 1}}, 'entry[0].resource.component'),
  ],
)
def test_what_is_no_fhir_is_refused_by_its_place(service, change, field):
  body = {'resourceType': 'Bundle', 'entry': [{'resource': observation() | change}]}
  answer = service.post('/fhir/RiskAssessment', json=body)
  assert answer.status_code == 422 and 'SECRET' not in answer.text
  assert answer.json()['errors'][0]['field'] == field


def test_two_patients_or_no_bundle_are_refused(service):
  answer = assess(service, PATIENT, PATIENT | {'id': 'p-2'})
  assert 'one Patient' in answer.json()['errors'][0]['message']
  answer = service.post('/fhir/RiskAssessment', json=observation())
  assert answer.status_code == 422
  assert answer.json()['errors'][0]['field'] == 'resourceType'
  answer = assess(service, observation(), when='SECRET')
  assert answer.status_code == 422 and 'SECRET' not in answer.text


def test_a_number_is_told_in_words(model):
  days = small_bundle.schema(Target('regression', unit='days', description='stay'))
  of_days = dataclasses.replace(model, schema=days)
  answer = PatientAnswer(
    id='p', value=3.25, unit='days', modalities=['labs'], coverage={}, warnings=['a']
  )
  made = fhir.risk_assessment(of_days, answer, WHEN, {'no time': 2})
  RiskAssessment.model_validate(made)
  assert made['prediction'][0]['rationale'] == 'predicted: 3.25 days'
  (card,) = cds_hooks.cards(of_days, answer, {})['cards']
  assert card['summary'] == 'stay: 3.25 days'


def hook(prefetch, **fields):
  return {
    'hook': 'patient-view',
    'hookInstance': 'd1577c69-dfbe-44ad-ba6d-3e05e953b2ea',
    'context': {'userId': 'Practitioner/1', 'patientId': 'p-1'},
    'prefetch': prefetch,
  } | fields


def recent(**changes):
  time = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
  return observation(time=time.isoformat(timespec='seconds'), **changes)


def test_the_service_of_cds_hooks_answers_with_a_card(service):
  listed = service.get('/cds-services').json()
  jsonschema.validate(listed, SERVICES)
  (one,) = listed['services']
  assert set(one['prefetch']) == {'patient', 'observations'}
  prefetch = {'patient': PATIENT, 'observations': bundle(recent())}
  answer = service.post(f'/cds-services/{one["id"]}', json=hook(prefetch))
  assert answer.status_code == 200, answer.text
  jsonschema.validate(answer.json(), CARDS)
  (card,) = answer.json()['cards']
  assert card['summary'].startswith('death in hospital: died ')
  assert 'survived' in card['detail'] and 'Not a medical device' in card['detail']


def test_without_anything_known_there_is_no_card(service):
  (one,) = service.get('/cds-services').json()['services']
  answer = service.post(f'/cds-services/{one["id"]}', json=hook({}))
  assert answer.json() == {'cards': []}


def test_what_is_no_hook_is_refused(service):
  (one,) = service.get('/cds-services').json()['services']
  path = f'/cds-services/{one["id"]}'
  assert service.post('/cds-services/other', json=hook({})).status_code == 404
  answer = service.post(path, json={'hook': 'SECRET'})
  assert answer.status_code == 422 and 'SECRET' not in answer.text
  answer = service.post(path, json=hook({'observations': ['SECRET']}))
  assert answer.status_code == 422 and 'SECRET' not in answer.text


def test_a_summary_is_never_too_long(model):
  answer = PatientAnswer(
    id='p', probabilities={'survived': 0.9, 'died': 0.1}, modalities=['labs'], coverage={},
    warnings=[],
  )  # fmt: skip
  long = small_bundle.schema(
    Target('binary', ('survived', 'died'), description='a long story ' * 20)
  )
  of = dataclasses.replace(model, schema=long)
  jsonschema.validate(cds_hooks.cards(of, answer, {}), CARDS)
