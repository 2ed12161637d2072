"""Which room may import which (docs/design.md, "Rooms")."""

import ast

import pytest

from data_pipeline.format import modalities
from docs import rooms
from docs.rooms import ORDER, ROOT, files, imports, module_of, room_of
from medm2t_jax import modalities as model_modalities

# The simulated hospital writes MIMIC's raw tables, to be staged by MIMIC's code.
OTHER_SOURCES = {('data_pipeline.sources.simulated', 'data_pipeline.sources.mimic_iv')}
MOST_FILES = 14
MOST_METHODS = 12
ONE_FILE_A_MEMBER = ('medm2t_jax/evaluation', 'medm2t_jax/modalities')


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
  outside = [module for module in rooms.modules() if not room_of(module)]
  assert set(outside) == set(rooms.PACKAGES)


def test_every_room_is_in_the_picture():
  drawn = [room for box in rooms.BOXES for room in box.rooms]
  assert sorted([*drawn, *rooms.NOT_DRAWN]) == sorted(ORDER)


def test_the_picture_is_up_to_date():
  command = f'python docs/rooms.py --out={rooms.PICTURE.relative_to(ROOT)}'
  written = rooms.PICTURE.read_text(encoding='utf-8')
  assert written == rooms.picture(), f'imports have changed: run `{command}`'


def test_the_data_pipeline_does_not_know_jax():
  for path in files():
    if path.relative_to(ROOT).parts[0] == 'data_pipeline':
      known = [name for name in imports(path) if name.split('.')[0] in ('jax', 'flax')]
      assert not known, f'{path} imports {known}'


def test_rooms_are_small():
  for folder in {path.parent for path in files()}:
    name = str(folder.relative_to(ROOT))
    count = len(list(folder.glob('*.py')))
    assert count <= MOST_FILES or name in ONE_FILE_A_MEMBER, f'{name} has {count} files'


def test_classes_are_small():
  """But the model's, whose methods are its parts, and a kind's, which are its contract."""
  for path in files():
    if {'models', 'modalities', 'targets'} & set(path.parts):
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


# Who may name a kind of modality: the kinds, and who writes or reads raw data of its own.
KNOW_THEIR_KINDS = (
  'data_pipeline/format/modalities',
  'data_pipeline/sources',
  'data_pipeline/ecg',
  'medm2t_jax/modalities',
  'medm2t_jax/models',
)
# Events are outcomes, too, and a report has notes: these kinds are not told by their name.
KINDS = {kind.kind for kind in modalities.KINDS} - {'events', 'notes'} | {'ecg'}
KIND_CLASSES = {kind.__name__ for kind in (*modalities.KINDS, *model_modalities.KINDS)}


def test_nobody_asks_which_kind_a_modality_is_of():
  """No kind's class is imported, and no kind's name compared or looked up."""
  for path in files():
    name = str(path.relative_to(ROOT))
    if name.startswith(KNOW_THEIR_KINDS):
      continue
    asked = sorted(_kinds_asked_for(path))
    assert not asked, f'{name} asks for {asked}'


def _kinds_asked_for(path):
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and 'modalities' in (node.module or ''):
      yield from KIND_CLASSES & {alias.name for alias in node.names}
      yield from KINDS & {(node.module or '').rpartition('.')[2]}
      yield from KINDS & {alias.name for alias in node.names}
    parts = []
    if isinstance(node, ast.Compare):
      parts = [node.left, *node.comparators]
    elif isinstance(node, ast.Subscript):
      parts = [node.slice]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      parts = node.args if node.func.attr in ('get', 'startswith', 'endswith') else []
    for part in parts:
      for each in ast.walk(part):
        if isinstance(each, ast.Constant) and each.value in KINDS:
          yield each.value
