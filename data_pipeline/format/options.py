"""Options: frozen dataclasses whose values are checked on creation.

The type of a field defines its allowed values: numbers and paths (`Annotated`), names
(`Literal`), tuples, mappings and nested options. An error is one line, with the allowed
values and the nearest name.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from data_pipeline.format.items import DataError


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of a number; None: no limit.

  Attributes:
    least: smallest allowed value.
    most: largest allowed value.
    above: values must be larger than this.
    below: values must be smaller than this.
  """

  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None

  def __str__(self) -> str:
    limits = {
      'at least': self.least, 'above': self.above, 'at most': self.most, 'below': self.below
    }  # fmt: skip
    return ' and '.join(f'{word} {x:g}' for word, x in limits.items() if x is not None)

  def hold(self, value: float) -> bool:
    """Whether a number is inside the limits; NaN never is."""
    return (
      (self.least is None or value >= self.least)
      and (self.above is None or value > self.above)
      and (self.most is None or value <= self.most)
      and (self.below is None or value < self.below)
    )


class LocalPath:
  """Limits of a path: a file or folder of this machine, not the URL of a bucket."""

  def __str__(self) -> str:
    return 'a path on this machine, not a URL: mount the bucket as a folder'

  def hold(self, value: str) -> bool:
    """Whether it is such a path."""
    return _URL.match(value) is None


_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')
Rate = Annotated[float, Limits(least=0, below=1)]
NotNegative = Annotated[float, Limits(least=0)]
Positive = Annotated[float, Limits(above=0)]
Count = Annotated[int, Limits(least=1)]
CountFromZero = Annotated[int, Limits(least=0)]
Place = Annotated[str, LocalPath()]


class Options:
  """Base class of frozen dataclasses that check their values; lists become tuples.

  Raises:
    DataError: a field has a value that is not allowed.
  """

  def __post_init__(self) -> None:
    for name, hint in _hints(type(self)).items():
      object.__setattr__(self, name, _checked(getattr(self, name), hint, name))

  @classmethod
  def from_fields(cls, fields: Mapping[str, Any], where: str = '') -> Self:
    """Options from nested mappings, such as those of a JSON file.

    Args:
      fields: all of them; there are no defaults.
      where: path of these options, for messages.

    Raises:
      DataError: a field is missing or unknown, or has a value that is not allowed.
    """
    hints = _hints(cls)
    for name in hints:
      if name not in fields:
        raise DataError(f'{_path(where, name)} is missing')
    for name in fields:
      if name not in hints:
        raise DataError(f'{_path(where, name)} is unknown{nearest(name, hints)}')
    return cls(
      **{name: _checked(fields[name], hints[name], _path(where, name)) for name in hints}
    )

  def to_fields(self) -> dict[str, Any]:
    """Nested dicts and tuples: the inverse of `from_fields`."""
    return {name: _plain(getattr(self, name)) for name in _hints(type(self))}

  def to_json(self) -> dict[str, Any]:
    """The fields as JSON values, with lists instead of tuples; `from_fields` reads them."""
    return json.loads(json.dumps(self.to_fields()))

  def changed(self, changes: Mapping[str, Any], where: str = '') -> Self:
    """A copy with changed values at some paths, for example {'model.ensemble': 8}.

    Raises:
      DataError: a path does not exist, or does not allow the value.
    """
    hints = _hints(type(self))
    made = {}
    for name, of_name in _by_name(changes).items():
      path = _path(where, name)
      if name not in hints:
        raise DataError(f'{path} is unknown{nearest(name, hints)}')
      new = _replaced(getattr(self, name), of_name, path)
      made[name] = _checked(new, hints[name], path)
    return dataclasses.replace(self, **made)  # pyright: ignore[reportArgumentType]

  def paths(self, prefix: str = '') -> Iterator[str]:
    """The paths of all values, including those inside mappings."""
    for name in _hints(type(self)):
      yield from _paths(getattr(self, name), f'{prefix}{name}')


def require_local_paths(given: Mapping[str, Any]) -> None:
  """Refuses URLs among texts that are paths or names.

  Args:
    given: values by the flag, with `--`, or environment variable that gives them.

  Raises:
    DataError: a value is a URL.
  """
  for name, value in given.items():
    if isinstance(value, str):
      _checked(value, Place, name)


def nearest(name: str, known: Iterable[str]) -> str:
  """The end of a message about an unknown name: a guess, and the known names."""
  known = [str(each) for each in known]
  close = closest(str(name), known)
  guess = ';' if close is None else f': did you mean {close!r}?'
  return f'{guess} known: {", ".join(known)}'


def closest(name: str, known: Iterable[str]) -> str | None:
  """The known name most similar to a name; None if none is similar."""
  return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


@functools.cache
def _hints(cls: type[Options]) -> dict[str, Any]:
  hints = typing.get_type_hints(cls, include_extras=True)
  return {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]


def _path(where: str, name: str) -> str:
  return f'{where}.{name}' if where else name


def _paths(value: Any, path: str) -> Iterator[str]:
  if isinstance(value, Options):
    yield from value.paths(f'{path}.')
  elif isinstance(value, Mapping):
    for name, each in value.items():
      yield from _paths(each, f'{path}.{name}')
  else:
    yield path


def _plain(value: Any) -> Any:
  if isinstance(value, Options):
    return value.to_fields()
  if isinstance(value, Mapping):
    return {name: _plain(each) for name, each in value.items()}
  return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _replaced(value: Any, changes: Mapping[str, Any], path: str) -> Any:
  """The value with changes at paths inside it; path '' is the value itself."""
  if '' in changes:
    return changes['']
  if isinstance(value, Options):
    return value.changed(changes, path)
  if not isinstance(value, Mapping):
    raise DataError(f'{path} has no {next(iter(changes))!r}: it is {value!r}')
  made = dict(value)
  for name, of_name in _by_name(changes).items():
    if '' not in of_name and name not in value:
      raise DataError(f'{path}.{name} is unknown{nearest(name, value)}')
    made[name] = _replaced(value.get(name), of_name, f'{path}.{name}')
  return made


def _by_name(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """First name of a path -> the rest of it ('' for none) -> value."""
  inner: dict[str, dict[str, Any]] = {}
  for path, value in changes.items():
    name, _, rest = path.partition('.')
    inner.setdefault(name, {})[rest] = value
  return inner


def _checked(value: Any, hint: Any, path: str) -> Any:
  """The value converted to its type: integers to float, lists to tuples.

  Mappings become the options of the field.
  """
  if isinstance(hint, type) and issubclass(hint, Options):
    return _checked_options(value, hint, path)
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    inside = _checked(value, arguments[0], path)
    limits: Limits | LocalPath = arguments[1]
    if not limits.hold(inside):
      raise DataError(f'{path}={value!r}: must be {limits}')
    return inside
  if origin is Literal:
    if value not in arguments:
      raise DataError(f'{path}={value!r} is unknown{nearest(value, arguments)}')
    return value
  if origin is tuple:
    return _checked_tuple(value, arguments, path)
  if origin is Mapping:
    if not isinstance(value, Mapping):
      raise DataError(f'{path}={value!r}: must be a mapping')
    return {
      str(name): _checked(each, arguments[1], f'{path}.{name}')
      for name, each in value.items()
    }
  if hint is float and type(value) is int:
    return float(value)
  if hint is Any or (
    isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
  ):
    return value
  raise DataError(f'{path}={value!r}: must be {_KINDS.get(hint, hint.__name__)}')


_KINDS = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a text'}


def _checked_options(value: Any, kind: type[Options], path: str) -> Options:
  if isinstance(value, kind):
    return value
  if not isinstance(value, Mapping):
    raise DataError(f'{path}={value!r}: its fields are missing')
  return kind.from_fields(value, path)


def _checked_tuple(value: Any, hints: tuple[Any, ...], path: str) -> tuple[Any, ...]:
  if not isinstance(value, tuple | list):
    raise DataError(f"{path}={value!r}: must be a tuple, for example ('a', 'b')")
  if hints[-1] is Ellipsis:
    hints = (hints[0],) * len(value)
  if len(value) != len(hints):
    raise DataError(f'{path}={value!r}: must have {len(hints)} parts')
  return tuple(
    _checked(each, hint, f'{path}[{place}]')
    for place, (each, hint) in enumerate(zip(value, hints, strict=True))
  )
