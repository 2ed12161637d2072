"""Reads a user's YAML files strictly, and checks them against a JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_pipeline.format.schema import DataError

FOLDER = Path(__file__).parent


class EntryError(Exception):
  """An entry contradicts another one; the caller adds the name of the file."""


def read_checked(path: Path, rules: str, page: str) -> Any:
  """The content of a YAML file.

  Args:
    path: of the file.
    rules: name of the JSON Schema in this folder, itself written as YAML.
    page: of the documentation that lists the keys.

  Raises:
    DataError: the file is not YAML or not UTF-8, repeats a key, or violates the rules; the
      message names the file and the entry.
  """
  # Not at import, because only this source needs it (extra `meds`).
  from jsonschema import Draft202012Validator
  from jsonschema.exceptions import best_match

  try:
    fields = yaml.load(path.read_text(encoding='utf-8-sig'), _UniqueKeys)
  except UnicodeDecodeError:
    raise DataError(f'{path}: not UTF-8 text. Save it as UTF-8.') from None
  except yaml.YAMLError as error:
    raise DataError(f'{path}: not valid YAML: {error}') from None
  schema = yaml.safe_load((FOLDER / rules).read_text(encoding='utf-8'))
  error = best_match(Draft202012Validator(schema).iter_errors(fields))
  if error is not None:
    where = error.json_path.removeprefix('$').lstrip('.') or 'the file'
    raise DataError(
      f'{path}: {where}: {error.message}. Write text that looks like a number or a '
      f'truth value in quotes; {page} lists the keys.'
    )
  return fields


class _UniqueKeys(yaml.SafeLoader):
  """A SafeLoader that refuses repeated keys; SafeLoader silently takes the last."""

  def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
    keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
    for key in keys:
      if keys.count(key) > 1:
        raise yaml.constructor.ConstructorError(
          None, None, f'the key {key!r} occurs twice', node.start_mark
        )
    return super().construct_mapping(node, deep)
