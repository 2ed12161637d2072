"""The page of one patient from the service."""

from __future__ import annotations

import html
import json
import re

import pytest


@pytest.fixture(scope='module')
def asked(service):
  """The request that the form holds."""
  page = service.get('/')
  assert page.status_code == 200 and page.headers['content-type'].startswith('text/html')
  found = re.search(r'<textarea[^>]*>(.*?)</textarea>', page.text, re.DOTALL)
  assert found and '<form method="post" action="/explore">' in page.text
  return json.loads(html.unescape(found[1]))


def test_the_page_of_a_request_has_its_prediction(service, asked):
  (expected,) = service.post('/predict', json=asked).json()['patients']
  answer = service.post('/explore', data={'request': json.dumps(asked)})
  assert answer.status_code == 200, answer.text
  assert answer.headers['cache-control'] == 'no-store'
  found = re.search(r'id="story">(.*?)</script>', answer.text, re.DOTALL)
  assert found
  story = json.loads(found[1])
  (output,) = story['outputs']
  risk = expected['probabilities'][output['name']]
  assert output['values'][-1] == pytest.approx(risk, abs=1e-5)
  used = expected['coverage']['used']
  assert any(f' {used} are used' in each for each in story['notes'])
  assert asked['patients'][0]['id'] not in answer.text.replace(story['version'], '')
  assert asked['patients'][0]['prediction_time'][:10] not in answer.text


@pytest.mark.parametrize(
  ('body', 'status'),
  [
    ({'request': 'no JSON'}, 422),
    ({'other': '{}'}, 422),
    ({'request': '{}', 'more': '1'}, 422),
    ({'request': '{"patients": []}'}, 422),
    ({'request': '[' * 100}, 422),
  ],
)
def test_other_forms_are_refused(service, body, status):
  answer = service.post('/explore', data=body)
  assert answer.status_code == status and answer.json()['detail']


def test_two_patients_have_no_page(service, asked):
  two = {**asked, 'patients': [{**asked['patients'][0], 'id': name} for name in 'ab']}
  answer = service.post('/explore', data={'request': json.dumps(two)})
  assert answer.status_code == 422 and 'one patient' in answer.text
  assert service.post('/explore', json=asked).status_code == 415
