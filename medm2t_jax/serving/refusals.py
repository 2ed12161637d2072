"""Refused requests: a status, and errors that name places but never values."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

MOST_ERRORS = 20


@dataclasses.dataclass(frozen=True)
class Problem:
  """One error of a request.

  Attributes:
    place: path of the field, with indices and known names only.
    message: what is allowed there.
    patient: index of the patient in the request; None if the error concerns none.
    id: the patient's `id`.
    event: index among the patient's events.
  """

  place: tuple[str | int, ...]
  message: str
  patient: int | None = None
  id: str | None = None
  event: int | None = None

  def to_json(self) -> dict[str, Any]:
    """The error as it is in the answer."""
    fields = {'patient': self.patient, 'id': self.id, 'event': self.event}
    return {
      'field': spelled(self.place),
      'message': self.message,
      **{name: value for name, value in fields.items() if value is not None},
    }


class Refused(Exception):
  """A request that is not answered.

  Attributes:
    status: HTTP status.
    reason: one of a few short names, for counting.
    message: one line, without any value of the request.
    problems: errors at places of the body.
    headers: of the answer.
  """

  def __init__(
    self,
    status: int,
    reason: str,
    message: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status, self.reason, self.message = status, reason, message
    self.problems, self.headers = problems, dict(headers or {})

  def to_json(self) -> dict[str, Any]:
    """The body of the answer, with at most `MOST_ERRORS` errors."""
    found = [each.to_json() for each in self.problems[:MOST_ERRORS]]
    return {'detail': self.message, **({'errors': found} if found else {})}


def invalid(problems: Sequence[Problem]) -> Refused:
  """A 422 refusal with these errors."""
  count = len(problems)
  more = f'; the first {MOST_ERRORS} are listed' if count > MOST_ERRORS else ''
  text = 'one error' if count == 1 else f'{count} errors'
  return Refused(422, 'invalid', f'{text} in the request{more}', problems)


def too_many(place: tuple[str | int, ...], count: int, most: int) -> Problem:
  """The problem of a list that is longer than its limit."""
  return Problem(place, f'{count} are given; at most {most} are allowed')


def spelled(place: Iterable[str | int]) -> str:
  """A path, for example `patients[0].events[3].code`."""
  text = ''
  for part in place:
    text += f'[{part}]' if isinstance(part, int) else f'.{part}' if text else part
  return text


def nearest(name: str, allowed: Collection[str]) -> str:
  """The allowed names nearest to an unknown one, which may not be repeated."""
  close = difflib.get_close_matches(name, list(allowed), n=1)
  few = ', '.join(sorted(allowed)[:MOST_ERRORS]) or 'none'
  rest = ', ...' if len(allowed) > MOST_ERRORS else ''
  guess = f'did you mean {close[0]!r}? ' if close else ''
  return f'{guess}allowed: {few}{rest}'


def problems_of(
  error: ValidationError, model: type[BaseModel], known: Collection[str]
) -> list[Problem]:
  """The errors that pydantic found, without any text of the request.

  Args:
    error: of `model`.
    model: of the whole request.
    known: names that may be repeated.
  """
  found = []
  for each in error.errors(include_url=False, include_context=True, include_input=False):
    place, kind = tuple(each['loc']), each['type']
    message = each['msg'].removeprefix('Input ').removeprefix('should be ')
    if kind == 'extra_forbidden':
      name, place = str(place[-1]), place[:-1]
      allowed = _fields_at(model, place)
      message = f'unknown field: {nearest(name, allowed)}'
    elif kind == 'missing':
      message = 'is required'
    elif kind == 'string_pattern_mismatch':
      message = f'must match {each.get("ctx", {})["pattern"]}'
    safe = tuple(part if isinstance(part, int) or part in known else '*' for part in place)
    found.append(Problem(safe, message, *_whose(place)))
  return found


def _whose(place: tuple[str | int, ...]) -> tuple[int | None, None, int | None]:
  """Patient and event that a place belongs to; the id follows from the patient."""
  after = dict(itertools.pairwise(place))
  patient, event = after.get('patients'), after.get('events')
  return (
    patient if isinstance(patient, int) else None,
    None,
    event if isinstance(event, int) else None,
  )


def _fields_at(model: type[BaseModel], place: tuple[str | int, ...]) -> set[str]:
  """Names of the fields that an object at a place of a request can have."""
  schema = model.model_json_schema(by_alias=True)
  here: dict[str, Any] = schema
  for part in (*place, None):
    while '$ref' in here or 'anyOf' in here:
      if 'anyOf' in here:
        here = next(one for one in here['anyOf'] if one.get('type') != 'null')
      else:
        here = schema['$defs'][here['$ref'].rpartition('/')[2]]
    if part is not None:
      here = here['items'] if isinstance(part, int) else here['properties'][part]
  return set(here.get('properties', ()))
