"""Limits of the service and its token: flags of `python -m medm2t_jax.serve`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from data_pipeline.format.options import Count, Options, Positive
from data_pipeline.format.schema import DataError

_LEAST_TOKEN = 16


@dataclasses.dataclass(frozen=True)
class ServiceOptions(Options):
  """Limits of a request, and the sizes of batches.

  Attributes:
    max_body_mb: largest size of a request's body, in MB.
    max_depth: deepest nesting of objects and lists in a body.
    max_patients: patients per request.
    max_events: rows per patient.
    max_recordings: ECGs per patient.
    max_samples: signal samples of a recording, over all leads.
    max_explained: patients per request that asks for explanations.
    max_waiting: waiting patients; above it, requests get status 503.
    body_seconds: time within which a body must arrive.
    batch_rows: rows of the compiled programs; waiting patients take the largest program
      that they fill at least half.
  """

  max_body_mb: Positive = 32.0
  max_depth: Count = 32
  max_patients: Count = 100
  max_events: Count = 20_000
  max_recordings: Count = 32
  max_samples: Count = 1_200_000
  max_explained: Count = 4
  max_waiting: Count = 512
  body_seconds: Positive = 30.0
  batch_rows: tuple[Count, ...] = (1, 4, 16)


def read_token(path: str | None) -> str:
  """The token in a file; '' without a file.

  Raises:
    DataError: the file cannot be read, or the token is too short.
  """
  if path is None:
    return ''
  try:
    token = Path(path).read_text(encoding='ascii').strip()
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'--token_file={path}: {type(error).__name__}.') from None
  if len(token) < _LEAST_TOKEN or not token.isprintable() or ' ' in token:
    raise DataError(
      f'--token_file={path}: a token must have at least {_LEAST_TOKEN} characters and no '
      'blanks. Make one: `openssl rand -hex 32 > FILE`.'
    )
  return token
