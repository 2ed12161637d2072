"""Serves predictions of a trained model over HTTP.

  python -m medm2t_jax.serve --model=BUNDLE [--port=8080]

docs/serving.md describes requests and answers; http://127.0.0.1:8080/docs shows them, with
an example of this model. On SIGTERM the service answers all accepted requests and ends.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from absl import flags

from medm2t_jax import command_line
from medm2t_jax.serving.service_options import ServiceOptions, read_token

_MODEL = flags.DEFINE_string(
  'model', None, 'A bundle, for example runs/first/fold0/model.', required=True
)
_MAPPING = flags.DEFINE_string(
  'mapping',
  '',
  'Mapping from event codes to variables: a shipped name or a YAML file '
  "(docs/sources.md). By default the mapping of the model's data source.",
)
_FHIR_MAPPING = flags.DEFINE_string(
  'fhir_mapping',
  '',
  'The same for FHIR, whose codes are LOINC//{code}. By default omop_loinc for models of '
  'MIMIC-IV; other models do not accept FHIR without it.',
)
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen on.')
_PORT = flags.DEFINE_integer('port', 8080, 'Port.', lower_bound=0, upper_bound=65535)
_TOKEN_FILE = flags.DEFINE_string(
  'token_file', None, 'File with the token that every request except /health must carry.'
)
_DEFAULTS = ServiceOptions()
_LIMITS = {
  'max_body_mb': flags.DEFINE_float(
    'max_body_mb', _DEFAULTS.max_body_mb, 'Largest body of a request, in MB.'
  ),
  'max_depth': flags.DEFINE_integer('max_depth', _DEFAULTS.max_depth, 'Deepest nesting.'),
  'max_patients': flags.DEFINE_integer(
    'max_patients', _DEFAULTS.max_patients, 'Most patients in a request.'
  ),
  'max_events': flags.DEFINE_integer(
    'max_events', _DEFAULTS.max_events, 'Events per patient.'
  ),
  'max_recordings': flags.DEFINE_integer(
    'max_recordings', _DEFAULTS.max_recordings, 'Most ECGs of a patient.'
  ),
  'max_samples': flags.DEFINE_integer(
    'max_samples', _DEFAULTS.max_samples, 'Most signal samples of an ECG, over all leads.'
  ),
  'max_explained': flags.DEFINE_integer(
    'max_explained', _DEFAULTS.max_explained, 'Most patients in a request for explanations.'
  ),
  'max_waiting': flags.DEFINE_integer(
    'max_waiting', _DEFAULTS.max_waiting, 'Most patients in the queue.'
  ),
  'body_seconds': flags.DEFINE_float(
    'body_seconds', _DEFAULTS.body_seconds, 'Seconds within which a body must arrive.'
  ),
}
_BATCH_ROWS = flags.DEFINE_list(
  'batch_rows', [*map(str, _DEFAULTS.batch_rows)], 'Rows of the compiled programs.'
)

# Source of a model's data -> the mapping for rows of that hospital.
_MAPPINGS = {
  'mimic_iv': 'mimic_iv', 'simulated': 'mimic_iv', 'physionet2012': 'physionet2012'
}  # fmt: skip
_FHIR_MAPPINGS = {'mimic_iv': 'omop_loinc', 'simulated': 'omop_loinc'}
_LOCAL = ('127.0.0.1', '::1', 'localhost')
_LOGGER = logging.getLogger('medm2t_jax.serve')


@command_line.command
def main(_: list[str]) -> None:
  """Loads the bundle and serves it until SIGTERM."""
  # Imported here so that --help and wrong flags answer at once.
  try:
    import uvicorn
  except ModuleNotFoundError as error:
    sys.exit(f"error: serving needs {error.name}: pip install 'medm2t_jax[serve]'")
  from medm2t_jax.runs.hosts import start_up

  start_up.start_without_data_sets()
  try:
    options = ServiceOptions(
      **{name: flag.value for name, flag in _LIMITS.items()},
      batch_rows=tuple(map(int, _BATCH_ROWS.value)),
    )
    token = read_token(_TOKEN_FILE.value)
    service = make(Path(_MODEL.value), options, token)
  except ValueError as error:
    sys.exit(f'error: {error}')
  if _HOST.value not in _LOCAL and not token:
    _LOGGER.warning(
      '--host=%s without --token_file: anyone who can reach this port can use the service.',
      _HOST.value,
    )
  config = uvicorn.Config(
    service,
    host=_HOST.value,
    port=_PORT.value,
    access_log=False,
    log_level='warning',
    server_header=False,
    limit_concurrency=2 * options.max_waiting,
  )
  _LOGGER.info('listening on http://%s:%d', _HOST.value, _PORT.value)
  uvicorn.Server(config).run()


def make(bundle: Path, options: Any, token: str) -> Any:
  """Builds the web application that serves a bundle.

  Args:
    bundle: folder of the bundle.
    options: limits.
    token: that requests must carry; '' if none is required.

  Raises:
    DataError: the folder is not a bundle, a mapping is unknown, or the self-test failed.
  """
  from data_pipeline.sources.meds import mapping
  from data_pipeline.sources.meds.patients import PatientReader
  from medm2t_jax.inference.attribution.explainer import Explainer
  from medm2t_jax.inference.trained_model import TrainedModel
  from medm2t_jax.serving.application import application

  model = TrainedModel.load(bundle)
  source = model.schema.source
  name = _MAPPING.value or _MAPPINGS.get(source)
  fhir_name = _FHIR_MAPPING.value or _FHIR_MAPPINGS.get(source)
  loaded, of_fhir = (
    mapping.load(mapping.path_of(each)) if each else None for each in (name, fhir_name)
  )
  if loaded is None:
    _LOGGER.warning(
      "the model's data source %r has no mapping: only events with the model's own codes "
      '(GET /model) are read. Use --mapping to give one.',
      source,
    )
  return application(
    model,
    PatientReader(model.schema, loaded),
    Explainer(model),
    options,
    mapping=loaded,
    fhir_reader=PatientReader(model.schema, of_fhir) if of_fhir else None,
    token=token,
  )


if __name__ == '__main__':
  command_line.run(main)
