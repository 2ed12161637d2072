"""Limits of the service and its token: flags of `python -m medm2t_jax.serve`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from data_pipeline.format.options import Count, Options, Positive
from data_pipeline.format.schema import DataError

_LEAST_TOKEN = 16


@dataclasses.dataclass(frozen=True)
class ServiceOptions(Options):
  """What a request may hold, and how many are answered together.

  Attributes:
    max_body_mb: size of a request's body.
    max_depth: how deep objects and lists of a body may be inside each other.
    max_patients: of a request.
    max_events: rows of a patient.
    max_recordings: ECGs of a patient.
    max_samples: of all leads of a recording.
    max_explained: patients of a request that asks for explanations.
    max_waiting: patients who wait for their prediction; beyond it: 503.
    body_seconds: in which a body has to arrive.
    batch_rows: rows of the compiled programs; patients who wait take the largest that
      they fill at least half.
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
  """The token of a file, '' without one.

  Raises:
    DataError: it cannot be read, or the token is short.
  """
  if path is None:
    return ''
  try:
    token = Path(path).read_text(encoding='ascii').strip()
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'--token_file={path}: {type(error).__name__}.') from None
  if len(token) < _LEAST_TOKEN or not token.isprintable() or ' ' in token:
    raise DataError(
      f'--token_file={path}: a token has at least {_LEAST_TOKEN} characters and no blanks. '
      'Make one: `openssl rand -hex 32 > FILE`.'
    )
  return token
