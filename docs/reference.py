"""Documents options and commands from the code, as Markdown of the reference pages.

`docs/conf.py` puts it where reference/config.md and reference/commands.md have the
directives `options` and `command`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

from data_pipeline.format.options import Options
from medm2t_jax.experiment.options import (
  DataOptions,
  EvaluationOptions,
  Experiment,
  Recipe,
  Sweep,
  TrainingOptions,
)
from medm2t_jax.models.options import ModelOptions

ROOT = Path(__file__).resolve().parents[1]

# Path of the fields -> what they are the fields of.
OPTIONS: dict[str, type[Options]] = {
  'config': Experiment,
  'config.recipe.STAGE': Recipe,
  'config.data': DataOptions,
  'config.model': ModelOptions,
  'config.training': TrainingOptions,
  'config.evaluation': EvaluationOptions,
  'sweep': Sweep,
}
# Type of a flag -> what stands behind its equals sign.
_FLAGS = {
  'bool': 'true|false',
  'comma separated list of strings': 'A,B,...',
  'config object': 'FILE',
  'float': 'NUMBER',
  'int': 'NUMBER',
  'string': 'TEXT',
}
_TYPES = {bool: 'True or False', int: 'whole number', float: 'number', str: 'text'}


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of options, or a flag.

  Attributes:
    name: with its path, or its dashes.
    kind: allowed values, Markdown; for a flag, the text after its equals sign.
    default: as it is written; '' if there is none.
    text: its meaning, Markdown.
  """

  name: str
  kind: str
  default: str
  text: str

  def of_config(self) -> str:
    """Markdown of a config value for Sphinx."""
    lines = [f'```{{confval}} {self.name}', f':type: {self.kind}']
    if self.default:
      lines.append(f':default: `{self.default}`')
    return '\n'.join([*lines, '', self.text, '```', ''])

  def of_command(self) -> str:
    """Markdown of a command-line option for Sphinx."""
    default = f' Default: `{self.default}`.' if self.default else ''
    return f'```{{option}} {self.name}={self.kind}\n{self.text}{default}\n```\n'


def fields_of(path: str) -> list[Field]:
  """The fields of the options at a path of `OPTIONS`.

  Raises:
    ValueError: a field that its class does not describe.
  """
  options = OPTIONS[path]
  texts = _texts(options)
  hints = typing.get_type_hints(options, include_extras=True)
  result = []
  for field in dataclasses.fields(options):  # pyright: ignore[reportArgumentType]
    if field.name not in texts:
      raise ValueError(
        f'{options.__name__}.{field.name} is not described: add it to "Attributes:" of '
        'the docstring'
      )
    kind = _kind(hints[field.name])
    result.append(Field(f'{path}.{field.name}', kind, _default(field), texts[field.name]))
  return result


def _texts(options: type) -> dict[str, str]:
  """Field -> its lines under "Attributes:" in the class or one that it extends."""
  texts: dict[str, str] = {}
  for cls in reversed(options.__mro__):
    if not dataclasses.is_dataclass(cls) or 'Attributes:' not in (cls.__doc__ or ''):
      continue
    lines = inspect.cleandoc(str(cls.__doc__)).partition('Attributes:\n')[2]
    lines = inspect.cleandoc(lines)
    for names, text in re.findall(r'^(\w[\w, ]*): (.*(?:\n +.*)*)', lines, re.MULTILINE):
      texts |= {name.strip(): ' '.join(text.split()) for name in names.split(',')}
  return texts


def _default(field: dataclasses.Field[Any]) -> str:
  if field.default is not dataclasses.MISSING:
    return repr(field.default)
  if field.default_factory is dict:
    return '{}'
  return ''


def _kind(hint: Any) -> str:
  """What a type allows, in words."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return f'{_kind(arguments[0])}, {arguments[1]}'
  if origin is Literal:
    return ' or '.join(f'`{name!r}`' for name in arguments)
  if origin is tuple:
    if arguments[-1] is Ellipsis:
      return f'tuple, each: {_kind(arguments[0])}'
    return ' and '.join(f'({_kind(each)})' for each in arguments)
  if origin is Mapping:
    return f'mapping of names, each to: {_kind(arguments[1])}'
  if isinstance(hint, type) and issubclass(hint, Options):
    [path] = [path for path, options in OPTIONS.items() if options is hint]
    return f'the fields of `{path}`'
  return _TYPES.get(hint, 'anything')


def commands() -> list[str]:
  """The modules that are run by `python -m`."""
  paths = [
    path for name in ('data_pipeline', 'medm2t_jax') for path in ROOT.glob(f'{name}/*.py')
  ]
  return sorted(
    f'{path.parent.name}.{path.stem}'
    for path in paths
    if "__name__ == '__main__'" in path.read_text(encoding='utf-8')
  )


def command(module: str) -> tuple[str, list[Field]]:
  """The usage text of a command, and its flags.

  Raises:
    ValueError: the command does not answer --helpxml.
  """
  told = subprocess.run(
    [sys.executable, '-m', module, '--helpxml'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,  # absl ends with 1 after help
  )
  if not told.stdout:
    raise ValueError(f'python -m {module} --helpxml: {told.stderr.strip()}')
  tree = ElementTree.fromstring(told.stdout)
  flags = [_flag(each) for each in tree.iter('flag') if each.find('key') is not None]
  return inspect.cleandoc(tree.findtext('usage', '')), flags


def _flag(flag: ElementTree.Element) -> Field:
  texts = {
    name: flag.findtext(name) or '' for name in ('name', 'meaning', 'type', 'default')
  }
  choices = [each.text or '' for each in flag.iter('enum_value')]
  kind = '|'.join(choices) or _FLAGS[texts['type']]
  meaning = re.sub(r'^<[^>]*>: ', '', ' '.join(texts['meaning'].split()))
  # What is not code may look like Markdown.
  meaning = re.sub(r'([<>{}*\[\]])', r'\\\1', meaning)
  default = '' if texts['default'] == 'None' else texts['default']
  return Field(f'--{texts["name"]}', kind, default, meaning)
