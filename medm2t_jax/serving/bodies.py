"""Reads bodies of requests under limits, before their content is trusted."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from typing import Any

import jiter
import numpy as np
from fastapi import Request

from medm2t_jax.serving.refusals import Refused
from medm2t_jax.serving.service_options import ServiceOptions

_KEPT = b'{}[]"\\'
_LEFT_OUT = bytes(set(range(256)) - set(_KEPT))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_WHERE = re.compile(
  r'^(?P<what>.*?)(?: "[^"]*")? at line (?P<line>\d+) column (?P<at>\d+)$'
)
_FORM = 'application/x-www-form-urlencoded'
_JSON = ('application/json', 'application/fhir+json')


async def read_json(request: Request, options: ServiceOptions) -> Any:
  """The JSON of a request's body.

  Raises:
    Refused: the body is not JSON, too large, too deep, too slow, or repeats a key. NaN and
      Infinity are not JSON.
  """
  kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if kind not in _JSON:
    raise Refused(
      415, 'content_type', f'the content type must be one of {", ".join(_JSON)}'
    )
  return _parsed(await _read(request, int(options.max_body_mb * 2**20)), options)


async def read_form(request: Request, options: ServiceOptions) -> Any:
  """The JSON in the field `request` of a form that a browser posts.

  Raises:
    Refused: as `read_json`, or the form is a different one.
  """
  kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if kind != _FORM:
    raise Refused(415, 'content_type', f'the content type must be {_FORM}')
  body = await _read(request, int(options.max_body_mb * 2**20))
  try:
    fields = urllib.parse.parse_qs(
      body.decode('ascii'), errors='strict', strict_parsing=True, max_num_fields=1
    )
    (text,) = fields['request']
  except (ValueError, KeyError):
    raise Refused(
      422, 'not_json', 'the form must have exactly one field, request'
    ) from None
  return _parsed(text.encode(), options)


def _parsed(body: bytes, options: ServiceOptions) -> Any:
  """A body as JSON.

  Raises:
    Refused: as `read_json`.
  """
  depth = _depth(body)
  if depth > options.max_depth:
    raise Refused(
      422,
      'limit',
      f'the JSON is {depth} levels deep; at most {options.max_depth} are allowed',
    )
  try:
    return jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
  except ValueError as error:
    found = _WHERE.match(str(error))
    place = f' at line {found["line"]}, column {found["at"]}' if found else ''
    twice = found is not None and 'duplicate key' in found['what']
    what = 'a key is repeated' if twice else 'the body is not JSON'
    raise Refused(422, 'not_json', f'{what}{place}') from None


async def _read(request: Request, most: int) -> bytes:
  too_large = Refused(413, 'too_large', f'the body is larger than {most} bytes')
  said = request.headers.get('content-length', '')
  if said.isdecimal() and int(said) > most:
    raise too_large
  chunks, size = [], 0
  seconds = request.app.state.options.body_seconds
  try:
    async with asyncio.timeout(seconds):
      async for chunk in request.stream():
        size += len(chunk)
        if size > most:
          raise too_large
        chunks.append(chunk)
  except TimeoutError:
    raise Refused(
      408, 'too_slow', f'the body did not arrive within {seconds:g} seconds'
    ) from None
  return b''.join(chunks)


def _depth(body: bytes) -> int:
  """Nesting depth of objects and lists, ignoring the content of strings."""
  marks = body.translate(None, _LEFT_OUT).replace(b'""', b'')
  if b'"' in marks:  # strings with brackets or escapes
    marks = _STRING.sub(b'', body.translate(None, _LEFT_OUT))
  codes = np.frombuffer(marks, np.uint8)
  opens = (codes == ord('{')) | (codes == ord('['))
  return int(np.cumsum(np.where(opens, 1, -1)).max(initial=0))


def dumped(value: Any) -> bytes:
  """JSON of a plain value, without NaN."""
  return json.dumps(value, allow_nan=False, separators=(',', ':')).encode()
