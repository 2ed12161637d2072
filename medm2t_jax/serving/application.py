"""The HTTP application: endpoints, access, errors, counting (docs/serving.md)."""

from __future__ import annotations

import contextlib
import hmac
import logging
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

import medm2t_jax
from data_pipeline.format.schema import DataError
from data_pipeline.sources.meds.patients import PatientReader
from data_pipeline.sources.meds.variables import Mapping
from medm2t_jax.inference.attribution.explainer import Explainer
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.serving import examples, times
from medm2t_jax.serving import requests as shapes
from medm2t_jax.serving.answers import (
  ErrorAnswer,
  HealthAnswer,
  ModelAnswer,
  PatientAnswer,
  PredictAnswer,
  model_answer,
  predict_answer,
)
from medm2t_jax.serving.batching import MicroBatches
from medm2t_jax.serving.bodies import dumped, read_form, read_json
from medm2t_jax.serving.compiled import CompiledModel
from medm2t_jax.serving.explorer.of_request import form_page, notes_of_request
from medm2t_jax.serving.explorer.page import page
from medm2t_jax.serving.explorer.story import StoryTeller
from medm2t_jax.serving.hl7 import cds_hooks, fhir
from medm2t_jax.serving.metrics import CONTENT_TYPE, ServiceMetrics
from medm2t_jax.serving.refusals import Problem, Refused, invalid, problems_of
from medm2t_jax.serving.service_options import ServiceOptions

_LOGGER = logging.getLogger(__name__)
_OPEN = '/health'
_DESCRIPTION = (
  'Predictions of one trained model. Times are ISO 8601; without an offset they are UTC. '
  'Data from after the prediction time is never used. Not a medical device.'
)


def application(
  model: TrainedModel,
  reader: PatientReader,
  explainer: Explainer,
  options: ServiceOptions,
  *,
  mapping: Mapping | None = None,
  fhir_reader: PatientReader | None = None,
  token: str = '',
) -> FastAPI:
  """Builds the service of a model and compiles its programs, so that it is ready.

  Args:
    model: the trained model.
    reader: reads the rows of `POST /predict`.
    explainer: of the same model.
    options: limits.
    mapping: of `reader`, shown in the documentation.
    fhir_reader: reads the rows of FHIR Observations; None: no FHIR and no CDS Hooks.
    token: required by every endpoint except /health; '' if none is required.

  Raises:
    DataError: the self-test of the model failed.
  """
  compiled = CompiledModel(model, options.batch_rows)
  metrics = ServiceMetrics()
  batches = MicroBatches(compiled, explainer, metrics, options.max_waiting)

  @contextlib.asynccontextmanager
  async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    batches.start()
    yield
    batches.close()

  app = FastAPIOffline(
    redoc_url=None,
    swagger_ui_parameters={'validatorUrl': None},  # it would be another server's
    title=f'medm2t_jax: {model.schema.task}',
    version=medm2t_jax.__version__,
    description=_DESCRIPTION,
    lifespan=lifespan,
  )
  app.state.options = options
  service = _Service(model, batches, options)
  codes = examples.request_codes(model.schema, mapping, reader.unread)
  _add_model(app, service, reader, metrics, codes)
  _add_explorer(app, service, reader, StoryTeller(model, explainer), codes)
  if fhir_reader is not None:
    _add_fhir(app, service, fhir_reader)
  _describe(app)
  app.add_exception_handler(HTTPException, _http_error)
  app.add_middleware(_Outermost, metrics=metrics, token=token)
  return app


class _Service:
  """State that the endpoints share."""

  def __init__(self, model: TrainedModel, batches: MicroBatches, options: ServiceOptions):
    self.model, self.batches, self.options = model, batches, options
    columns = shapes.static_columns(model.schema)
    self._known = shapes.names_of(shapes.PredictRequest) | {*shapes.KNOWN, *columns}

  async def predict(
    self,
    request: shapes.PredictRequest,
    reader: PatientReader,
    warnings: Sequence[Sequence[str]] | None = None,
  ) -> PredictAnswer:
    """Answers a request that pydantic accepted."""
    shapes.check(request, self.model.schema, self.options)
    patients = shapes.patients_of(request.patients)
    predicted = await self.batches.predict(patients, reader, explain=request.explain)
    if warnings is None:
      warnings = [_of_offsets(each) for each in request.patients]
    ids = [each.id for each in request.patients]
    return predict_answer(self.model, ids, predicted, warnings)

  def predict_request(self, body: Any) -> shapes.PredictRequest:
    """Validates a body as a request."""
    try:
      return shapes.PredictRequest.model_validate(body)
    except ValidationError as error:
      found = problems_of(error, shapes.PredictRequest, self._known)
      raise invalid([_with_id(each, body) for each in found]) from None


def _add_model(
  app: FastAPI,
  service: _Service,
  reader: PatientReader,
  metrics: ServiceMetrics,
  codes: examples.Codes,
) -> None:
  """Adds the endpoints of predictions, model and service."""
  model, options = service.model, service.options
  shown = examples.example(model.schema, codes)
  told = model_answer(
    model,
    codes,
    shapes.static_columns(model.schema),
    examples.shown_limits(options.to_fields()),
  )
  described = _json_of(told)

  @app.post(
    '/predict',
    response_model=PredictAnswer,
    responses=_ERRORS,
    summary='Predicts one patient or many',
    openapi_extra=_takes(shapes.PredictRequest, shown),
  )
  async def predict(request: Request) -> Response:
    body = service.predict_request(await read_json(request, options))
    return _json(await service.predict(body, reader))

  @app.get(
    '/model', response_model=ModelAnswer, summary='The model, its variables, its card'
  )
  async def model_() -> Response:
    return Response(described, media_type='application/json')

  @app.get('/health', response_model=HealthAnswer, summary='Whether patients are predicted')
  async def health() -> Response:
    ready = service.batches.ready
    said = HealthAnswer(status='ready' if ready else 'closing', version=model.version)
    return _json(said, 200 if ready else 503)

  @app.get(
    '/metrics', summary='Counters, as Prometheus reads them', response_class=Response
  )
  async def metrics_() -> Response:
    return Response(metrics.text(), headers={'content-type': CONTENT_TYPE})


def _add_explorer(
  app: FastAPI,
  service: _Service,
  reader: PatientReader,
  teller: StoryTeller,
  codes: examples.Codes,
) -> None:
  """Adds the page of one patient, and the form for it."""
  model, options = service.model, service.options
  form = form_page(model, examples.example(model.schema, codes))

  @app.get('/', response_class=HTMLResponse, summary='A form for a page of one patient')
  async def form_() -> Response:
    return HTMLResponse(form)

  @app.post(
    '/explore',
    response_class=HTMLResponse,
    responses=_ERRORS,
    summary='The page of one patient: field `request` of a form holds the JSON of /predict',
  )
  async def explore(request: Request) -> Response:
    body = service.predict_request(await read_form(request, options))
    shapes.check(body, model.schema, options)
    if len(body.patients) != 1:
      raise invalid([Problem(('patients',), 'the page shows exactly one patient')])
    patients = shapes.patients_of(body.patients)

    def tell() -> str:
      read = reader.read(patients)
      notes = [*_of_offsets(body.patients[0]), *notes_of_request(read.coverage[0])]
      return page(teller.tell(read.examples[0], notes=notes))

    told = await service.batches.explore(tell)
    return HTMLResponse(told, headers={'Cache-Control': 'no-store'})


def _add_fhir(app: FastAPI, service: _Service, reader: PatientReader) -> None:
  """Adds FHIR and CDS Hooks."""
  model, options = service.model, service.options

  async def assess(
    resources: Sequence[tuple[tuple[str | int, ...], Any]], when: str
  ) -> tuple[PatientAnswer, dict[str, int]]:
    patient, unused = fhir.patient_request(resources, when)
    answer = await service.predict(shapes.PredictRequest(patients=[patient]), reader, [[]])
    return answer.patients[0], unused

  @app.post(
    '/fhir/RiskAssessment',
    responses=_ERRORS,
    summary='A FHIR R4 Bundle of Patient and Observations in, a RiskAssessment out',
    openapi_extra=_takes(fhir.Bundle, _BUNDLE),
  )
  async def risk_assessment(request: Request, prediction_time: str = '') -> Response:
    when = prediction_time or fhir.now()
    if times.microseconds(when) is None:
      raise invalid([Problem(('prediction_time',), 'ISO 8601, as 2026-03-02T10:00:00Z')])
    resources = [*fhir.resources_of(await read_json(request, options))]
    answer, unused = await assess(resources, when)
    found = fhir.risk_assessment(model, answer, when, unused)
    return Response(dumped(found), media_type='application/fhir+json')

  @app.get('/cds-services', summary='CDS Hooks: the services')
  async def cds_services() -> Response:
    return Response(dumped(cds_hooks.services(model)), media_type='application/json')

  @app.post(
    '/cds-services/{service}',
    responses=_ERRORS,
    summary='CDS Hooks: a card for a patient',
    openapi_extra=_takes(cds_hooks.HookRequest, None),
  )
  async def cds_service(request: Request, service: str) -> Response:
    if service != cds_hooks.service_id(model):
      raise Refused(404, 'unknown', f'the only service is {cds_hooks.service_id(model)}')
    body = await read_json(request, options)
    try:
      hook = cds_hooks.HookRequest.model_validate(body)
    except ValidationError as error:
      known = shapes.names_of(cds_hooks.HookRequest)
      raise invalid(problems_of(error, cds_hooks.HookRequest, known)) from None
    answer, unused = await assess(cds_hooks.resources_of(hook), fhir.now())
    found = cds_hooks.cards(model, answer, unused)
    return Response(dumped(found), media_type='application/json')


class _Outermost:
  """Wraps every request: access, counting, and errors without values of the request."""

  def __init__(self, app: Any, *, metrics: ServiceMetrics, token: str):
    self._app, self._metrics = app, metrics
    self._expected = f'Bearer {token}'.encode() if token else b''

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    began, status = time.perf_counter(), 0

    async def counted(message: Any) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
      await send(message)

    try:
      self._require_token(scope)
      await self._app(scope, receive, counted)
    except Exception as error:
      response = self._refusal(error)
      if not status:
        await response(scope, receive, counted)
    # Counts known endpoints by name, and all other paths as one.
    route = scope.get('route')
    endpoint = getattr(route, 'path', 'other')
    self._metrics.requests.labels(endpoint, str(status)).inc()
    self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - began)

  def _require_token(self, scope: Any) -> None:
    if not self._expected or scope['path'] == _OPEN:
      return
    given = dict(scope['headers']).get(b'authorization', b'')
    if not hmac.compare_digest(given, self._expected):
      headers = {'WWW-Authenticate': 'Bearer'}
      raise Refused(401, 'token', 'a bearer token is required', headers=headers)

  def _refusal(self, error: Exception) -> Response:
    if isinstance(error, DataError):
      error = Refused(422, 'data', 'the patients cannot be read')
    if isinstance(error, Refused):
      self._metrics.refused.labels(error.reason).inc()
      content = dumped(error.to_json())
      return Response(content, error.status, error.headers, media_type='application/json')
    # The text of an error may hold values, so only the place where it was raised is logged.
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = ' < '.join(f'{at.filename}:{at.lineno}' for at in reversed(frames))
    _LOGGER.error('%s at %s', type(error).__name__, places)
    self._metrics.refused.labels('error').inc()
    return Response(
      dumped({'detail': 'internal error; the log has the details'}),
      500,
      media_type='application/json',
    )


async def _http_error(_: Request, error: Exception) -> Response:
  """Answers errors of Starlette itself: unknown paths and methods."""
  assert isinstance(error, HTTPException)
  raise Refused(error.status_code, 'unknown', str(error.detail), headers=error.headers)


def _json_of(answer: BaseModel) -> bytes:
  return answer.__pydantic_serializer__.to_json(answer, exclude_none=False)


def _json(answer: BaseModel, status: int = 200) -> Response:
  return Response(_json_of(answer), status, media_type='application/json')


def _of_offsets(patient: shapes.PatientRequest) -> list[str]:
  return ['times without an offset were taken as UTC'] * shapes.without_offset(patient)


def _with_id(problem: Problem, body: Any) -> Problem:
  """The problem with its patient's id, if that is one."""
  if problem.patient is None:
    return problem
  patient = body['patients'][problem.patient]
  given = patient.get('id') if isinstance(patient, dict) else None
  known = isinstance(given, str) and shapes.is_identifier(given)
  return Problem(
    problem.place, problem.message, problem.patient, given if known else None, problem.event
  )


# For the OpenAPI page: FastAPI does not parse the bodies, so they are described here.

_ERRORS: dict[int | str, dict[str, Any]] = {
  status: {'model': ErrorAnswer, 'description': text}
  for status, text in {
    401: 'The token is missing or wrong.',
    408: 'The body arrived too slowly.',
    413: 'The body is too large.',
    415: 'No JSON.',
    422: 'The request is invalid; the errors say where.',
    503: 'Too many requests are waiting; `Retry-After` says when to try again.',
  }.items()
}
_BODIES: tuple[type[BaseModel], ...] = (
  shapes.PredictRequest,
  fhir.Bundle,
  cds_hooks.HookRequest,
)
_BUNDLE = {
  'resourceType': 'Bundle',
  'type': 'collection',
  'entry': [
    {
      'resource': {
        'resourceType': 'Patient', 'id': 'example', 'gender': 'female',
        'birthDate': '1950-05-01',
      },
    },
    {
      'resource': {
        'resourceType': 'Observation',
        'status': 'final',
        'code': {'coding': [{'system': fhir.LOINC, 'code': '2160-0'}]},
        'effectiveDateTime': '2026-03-02T09:30:00Z',
        'valueQuantity': {
          'value': 1.4, 'unit': 'mg/dL', 'system': 'http://unitsofmeasure.org',
          'code': 'mg/dL',
        },
      },
    },
  ],
}  # fmt: skip


def _takes(model: type[BaseModel], example: Any) -> dict[str, Any]:
  content: dict[str, Any] = {'schema': {'$ref': f'#/components/schemas/{model.__name__}'}}
  if example is not None:
    content['example'] = example
  return {'requestBody': {'required': True, 'content': {'application/json': content}}}


def _describe(app: FastAPI) -> None:
  """Adds the models of bodies to the application's OpenAPI."""
  made = app.openapi

  def openapi() -> dict[str, Any]:
    if app.openapi_schema is None:
      described = made()
      _, definitions = models_json_schema(
        [(model, 'validation') for model in _BODIES],
        ref_template='#/components/schemas/{model}',
      )
      schemas = described.setdefault('components', {}).setdefault('schemas', {})
      schemas.update(definitions['$defs'])
    assert app.openapi_schema is not None
    return app.openapi_schema

  app.openapi = openapi
