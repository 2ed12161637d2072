"""Which room may import which (docs/design.md, "Rooms")."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the lowest to the highest: a room imports only rooms before it. The files of a
# package's top, which are in no room, are rooms of their own.
ORDER = (
  'data_pipeline.format',
  'data_pipeline.child_process',
  'data_pipeline.folders',
  'data_pipeline.lock',
  'data_pipeline.processors',
  'data_pipeline.sources',  # what a source is
  'data_pipeline.sources.common',
  'data_pipeline.ecg',
  'data_pipeline.sources.mimic_iv',
  'data_pipeline.sources.meds',
  'data_pipeline.sources.physionet2012',
  'data_pipeline.sources.simulated',
  'data_pipeline.reading',
  'data_pipeline.preparation',
  'data_pipeline.prepare',
  'medm2t_jax.models',
  'medm2t_jax.modalities',
  'medm2t_jax.experiment',
  'medm2t_jax.runs',
  'medm2t_jax.training',
  'medm2t_jax.baselines',
  'medm2t_jax.inference',
  'medm2t_jax.report',
  'medm2t_jax.evaluation',
  'medm2t_jax.audit',
  'medm2t_jax.studies',
  'medm2t_jax.command_line',
  'medm2t_jax.main',
  'medm2t_jax.bundle',
  'medm2t_jax.predict',
  'medm2t_jax.ablate',
  'medm2t_jax.sweep',
)
# The simulated hospital writes MIMIC's raw tables, to be staged by MIMIC's code.
OTHER_SOURCES = {('data_pipeline.sources.simulated', 'data_pipeline.sources.mimic_iv')}
MOST_FILES = 14
MOST_METHODS = 12
ONE_FILE_A_SECTION = ('medm2t_jax/evaluation',)


def files():
  return [
    path
    for package in ('medm2t_jax', 'data_pipeline')
    for path in sorted((ROOT / package).rglob('*.py'))
  ]


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path) for path in files()}


def room_of(module):
  """The longest room that a module is in; the package itself is in none."""
  found = [room for room in ORDER if f'{module}.'.startswith(f'{room}.')]
  return max(found, key=len, default=None)


def imports(path):
  """All modules of ours that a file imports, in functions too."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: an import without its package'
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        yield name if name in MODULES else node.module


@pytest.mark.parametrize('room', ORDER)
def test_no_import_goes_upwards(room):
  allowed = ORDER[: ORDER.index(room)]
  for path in files():
    if room_of(module_of(path)) != room:
      continue
    for module in imports(path):
      other = room_of(module)
      assert other in (None, room, *allowed), f'{path} of {room} imports {module}'
      if 'sources.' in room and 'sources.' in (other or '') and other != room:
        is_source = other != 'data_pipeline.sources.common'
        assert not is_source or (room, other) in OTHER_SOURCES, f'{path} imports {module}'


def test_every_file_is_in_a_room():
  packages = ('medm2t_jax', 'data_pipeline')
  outside = [module for module in MODULES if not room_of(module) and module not in packages]
  assert not outside


def test_the_data_pipeline_does_not_know_jax():
  for path in files():
    if path.relative_to(ROOT).parts[0] == 'data_pipeline':
      known = [name for name in imports(path) if name.split('.')[0] in ('jax', 'flax')]
      assert not known, f'{path} imports {known}'


def test_rooms_are_small():
  for folder in {path.parent for path in files()}:
    name = str(folder.relative_to(ROOT))
    count = len(list(folder.glob('*.py')))
    assert count <= MOST_FILES or name in ONE_FILE_A_SECTION, f'{name} has {count} files'


def test_classes_are_small():
  """But the model's, whose methods are its parts."""
  for path in files():
    if 'models' in path.parts:
      continue
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.ClassDef):
        names = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
        count = sum(not name.startswith('__') for name in names)
        assert count <= MOST_METHODS, f'{path}: {node.name} has {count} methods'


def test_nobody_reaches_into_another_object():
  """Privates are read and set by their own class alone."""
  for path in files():
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        continue
      private = node.attr.startswith('_') and not node.attr.startswith('__')
      stored = isinstance(node.ctx, ast.Store)
      own = node.value.id in ('self', 'cls')
      assert own or not (private and stored), f'{path}:{node.lineno} sets {node.attr}'
