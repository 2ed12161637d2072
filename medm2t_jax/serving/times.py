"""Times of requests: ISO 8601, to a microsecond; without an offset they are UTC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

PATTERN = (
  r'^[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?'
  r'(Z|[+-][0-9]{2}:[0-9]{2})?$'
)
_TO_SECONDS = len('2150-03-02T10:00:00Z')
_BEYOND_MICROSECONDS = re.compile(r'(\.[0-9]{6})[0-9]+')


def instants(texts: Sequence[str | None]) -> pa.Array:
  """Texts of `PATTERN` as timestamp[us]; null stays null.

  Raises:
    pyarrow.ArrowInvalid: there is no such day or time.
  """
  said = [
    text if not text or (text[-1] == 'Z' and len(text) == _TO_SECONDS) else _full(text)
    for text in texts
  ]
  utc = pc.cast(pa.array(said, pa.string()), pa.timestamp('us', 'UTC'))
  return pc.cast(utc, pa.timestamp('us'))


def microseconds(text: str) -> int | None:
  """Microseconds since 1970; None if there is no such time."""
  if re.search(PATTERN, text) is None:
    return None
  try:
    return instants([text]).cast(pa.int64())[0].as_py()
  except pa.ArrowInvalid:
    return None


def without_offset(texts: Iterable[str | None]) -> bool:
  """Whether any of the times has no offset."""
  ends = {text[-6:] for text in texts if text}
  return not all(end[-1] == 'Z' or end[0] in '+-' for end in ends)


def _full(text: str) -> str:
  """The text with an offset, and without digits beyond the microsecond."""
  text = _BEYOND_MICROSECONDS.sub(r'\1', text)
  return f'{text}Z' if without_offset([text]) else text
