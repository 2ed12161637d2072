"""The service of a small model, in this process."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from data_pipeline.sources.meds import mapping
from data_pipeline.sources.meds.patients import PatientReader
from medm2t_jax.inference.attribution.explainer import Explainer
from medm2t_jax.serving import application as module
from medm2t_jax.serving.application import application
from medm2t_jax.serving.compiled import CompiledModel
from medm2t_jax.serving.service_options import ServiceOptions
from tests.support import small_bundle

OPTIONS = ServiceOptions(
  max_body_mb=1.0,
  max_depth=16,
  max_patients=20,
  max_events=50,
  max_recordings=3,
  max_samples=70_000,
  max_explained=1,
  max_waiting=40,
  batch_rows=(1, 8),
)


@pytest.fixture(scope='session')
def model():
  return small_bundle.model(trunk='ensemble', ensemble=2, deep='none')


def reader(model, name):
  return PatientReader(model.schema, mapping.load(mapping.path_of(name)))


@pytest.fixture(scope='session')
def make_service(model):
  """Makes an application with options or a token of its own; all share their programs."""
  compiled = CompiledModel(model, OPTIONS.batch_rows)
  explainer = Explainer(model)

  def make(options=OPTIONS, token=''):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(module, 'CompiledModel', lambda *_: compiled)
      return application(
        model,
        reader(model, small_bundle.MAPPING),
        explainer,
        options,
        mapping=mapping.load(mapping.path_of(small_bundle.MAPPING)),
        fhir_reader=reader(model, 'omop_loinc'),
        token=token,
      )

  return make


@pytest.fixture(scope='session')
def service(make_service):
  """A client of a running service, for all tests."""
  with TestClient(make_service()) as client:
    yield client
