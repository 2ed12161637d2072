"""The rooms of the code, in their order, and a picture of what they import.

  python docs/rooms.py --out=docs/rooms.svg

`tests/rooms_test.py` compares the code with the order, and the committed picture with the
code. An arrow is drawn only if an import exists and does not follow from other arrows. The
same tree gives the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('medm2t_jax', 'data_pipeline')
PICTURE = ROOT / 'docs' / 'rooms.svg'

# From the lowest to the highest: a room imports only rooms before it. The files at the top
# of a package, which are in no room, are rooms of their own.
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
  'medm2t_jax.targets',
  'medm2t_jax.modalities',
  'medm2t_jax.damage',
  'medm2t_jax.experiment',
  'medm2t_jax.runs',
  'medm2t_jax.training',
  'medm2t_jax.baselines',
  'medm2t_jax.inference',
  'medm2t_jax.report',
  'medm2t_jax.evaluation',
  'medm2t_jax.audit',
  'medm2t_jax.studies',
  'medm2t_jax.serving',
  'medm2t_jax.command_line',
  'medm2t_jax.main',
  'medm2t_jax.bundle',
  'medm2t_jax.predict',
  'medm2t_jax.export',
  'medm2t_jax.explore',
  'medm2t_jax.serve',
  'medm2t_jax.ablate',
  'medm2t_jax.sweep',
)


# What is imported.


def files() -> list[Path]:
  """All source files of the packages."""
  return [path for name in PACKAGES for path in sorted((ROOT / name).rglob('*.py'))]


def module_of(path: Path) -> str:
  """The dotted name of a source file."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


@functools.cache
def modules() -> frozenset[str]:
  """The dotted names of all source files."""
  return frozenset(module_of(path) for path in files())


def room_of(module: str) -> str | None:
  """The longest room that a module is in; the package itself is in none."""
  found = [room for room in ORDER if f'{module}.'.startswith(f'{room}.')]
  return max(found, key=len, default=None)


def imports(path: Path) -> Iterator[str]:
  """All modules that a file imports, in functions too."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level and node.module, f'{path}: an import without its package'
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        yield name if name in modules() else node.module


# The picture. A box is one room or several; columns count from the left, rows from the top.


@dataclasses.dataclass(frozen=True)
class Box:
  """A box of the picture.

  Attributes:
    label: at most two words.
    purpose: one short line.
    rooms: in the box.
    column: of its left edge.
    row: from the top.
    columns: number of columns that it spans.
  """

  label: str
  purpose: str
  rooms: tuple[str, ...]
  column: int
  row: int
  columns: int = 1

  @property
  def left(self) -> float:
    """The x of the left edge."""
    return _MARGIN + self.column * _PITCH + (_BETWEEN if self.column >= 2 else 0)

  @property
  def right(self) -> float:
    """The x of the right edge."""
    return self.left + _WIDTH + (self.columns - 1) * _PITCH

  @property
  def top(self) -> float:
    """The y of the top edge."""
    return _TOP + self.row * _ROW

  @property
  def bottom(self) -> float:
    """The y of the bottom edge."""
    return self.top + _HEIGHT

  @property
  def middle(self) -> tuple[float, float]:
    """(x, y) of the center."""
    return (self.left + self.right) / 2, self.top + _HEIGHT / 2


_WIDTH, _HEIGHT, _PITCH, _ROW = 186, 46, 208, 72
_MARGIN, _TOP, _BETWEEN, _PANEL = 36, 62, 56, 16


def _rooms(package: str, names: str) -> tuple[str, ...]:
  return tuple(f'{package}.{name}' for name in names.split())


_DATA = functools.partial(_rooms, 'data_pipeline')
_MODEL = functools.partial(_rooms, 'medm2t_jax')
_SOURCES = 'sources.mimic_iv sources.meds sources.physionet2012 sources.simulated'
_COMMANDS = 'command_line main bundle predict export explore serve ablate sweep'

BOXES = (
  Box('commands', 'main, predict, export, serve, and others', _MODEL(_COMMANDS), 2, 0, 2),
  Box('audit', 'tests what is promised', _MODEL('audit'), 2, 1),
  Box('studies', 'ablations and sweeps', _MODEL('studies'), 3, 1),
  Box('serving', 'predictions over HTTP', _MODEL('serving'), 3, 2),
  Box('evaluation', 'metrics and sections', _MODEL('evaluation'), 2, 2),
  Box('report', 'pages and plots', _MODEL('report'), 3, 3),
  Box('inference', 'the trained model', _MODEL('inference'), 2, 3),
  Box('baselines', 'other predictors', _MODEL('baselines'), 2, 4),
  Box('training', 'stages, steps, losses', _MODEL('training'), 2, 5),
  Box('runs', 'splits, checkpoints, workdir', _MODEL('runs'), 2, 6),
  Box('experiment', 'from config to sizes', _MODEL('experiment'), 2, 7),
  Box('damage', 'damaged batches', _MODEL('damage'), 3, 7),
  Box('modalities', 'what is fitted of each', _MODEL('modalities'), 3, 8),
  Box('targets', 'what can be predicted', _MODEL('targets'), 2, 8),
  Box('models', 'arrays in, arrays out', _MODEL('models'), 3, 9),
  Box('prepare', 'the command', _DATA('prepare'), 1, 6),
  Box('preparation', 'cohort, folds, shards', _DATA('preparation'), 1, 7),
  Box('sources', 'one room a source', _DATA(_SOURCES), 0, 7),
  Box('ecg', 'reading and conditioning', _DATA('ecg'), 0, 8),
  Box('common', 'tables, units, items', _DATA('sources sources.common'), 0, 9),
  Box('reading', 'plans and batches', _DATA('reading'), 1, 9),
  Box('format', 'schema, records, data sets', _DATA('format'), 0, 10, 2),
)
# Files that many rooms use and that have no room.
NOT_DRAWN = _DATA('child_process folders lock processors')


def arrows() -> list[tuple[str, str]]:
  """(box, box that it imports), without what follows from other arrows."""
  box_of = {room: box.label for box in BOXES for room in box.rooms}
  direct: dict[str, set[str]] = {box.label: set() for box in BOXES}
  for path in files():
    importer = box_of.get(room_of(module_of(path)) or '')
    imported = {box_of.get(room_of(module) or '') for module in imports(path)}
    if importer:
      direct[importer] |= {each for each in imported if each and each != importer}
  return [
    (label, other)
    for label, others in direct.items()
    for other in sorted(others)
    if not any(other in _reached(direct, each) for each in others - {other})
  ]


def _reached(direct: Mapping[str, set[str]], label: str) -> set[str]:
  """Everything that a box imports, directly or indirectly."""
  found: set[str] = set()
  waiting = [label]
  while waiting:
    new = direct[waiting.pop()] - found
    found |= new
    waiting += new
  return found


Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]


def _straight(start: Point, end: Point) -> Curve:
  middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
  return start, middle, middle, end


def _ways(start: Box, end: Box) -> Iterator[Curve]:
  """Curves from one box to another, the simplest first."""
  (x0, y0), (x1, y1) = start.middle, end.middle
  over = max(start.left, end.left), min(start.right, end.right)
  if over[0] < over[1]:
    x, down = sum(over) / 2, end.top > start.bottom
    ends = (start.bottom, end.top) if down else (start.top, end.bottom)
    yield _straight((x, ends[0]), (x, ends[1]))
  rightwards = x1 > x0
  leave = start.right if rightwards else start.left
  enter = end.left if rightwards else end.right
  if y0 == y1:
    yield _straight((leave, y0), (enter, y1))
  for shift in (0, -8, 8):
    yield (leave, y0 + shift), (x1, y0 + shift), (x1, y0 + shift), (x1, end.top)
    yield (x0, start.bottom), (x0, y1 + shift), (x0, y1 + shift), (enter, y1 + shift)
  for shift in (0, -8, 8):
    between = enter + (40 if enter < leave else -40)
    yield (leave, y0), (between, y0), (between, y1 + shift), (enter, y1 + shift)


def _points(curve: Curve, count: int = 64) -> list[Point]:
  """Points of a Bézier curve, without its ends."""
  points = []
  for number in range(1, count):
    t = number / count
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = (
      sum(w * p[axis] for w, p in zip(weights, curve, strict=True)) for axis in (0, 1)
    )
    points.append((x, y))
  return points


def _cost(curve: Curve, ends: tuple[Box, Box], drawn: Sequence[Curve]) -> tuple[int, int]:
  """Number of points inside boxes, and the length along curves that are already drawn."""
  points = _points(curve)
  space = lambda box: -1 if box in ends else 6
  inside = sum(
    box.left - space(box) < x < box.right + space(box)
    and box.top - space(box) < y < box.bottom + space(box)
    for x, y in points
    for box in BOXES
  )
  others = [point for other in drawn for point in (*other[::3], *_points(other))]
  own = (*curve[::3], *points)
  near = sum(any(abs(x - a) < 5 and abs(y - b) < 5 for a, b in others) for x, y in own)
  return inside, near // 8  # a crossing is none


def picture() -> str:
  """The SVG."""
  boxes = {box.label: box for box in BOXES}
  drawn: list[Curve] = []
  for label, other in arrows():
    start, end = boxes[label], boxes[other]
    costs = [(_cost(way, (start, end), drawn), way) for way in _ways(start, end)]
    drawn.append(min(costs, key=lambda cost: cost[0])[1])
  width = max(box.right for box in BOXES) + _MARGIN
  height = max(box.bottom for box in BOXES) + _MARGIN
  panels = [_panel(package, height) for package in reversed(PACKAGES)]
  body = [*panels, *_legend(), *map(_arrow, drawn), *map(_box, BOXES)]
  return _PAGE.format(width=width, height=height, body='\n'.join(body))


_PAGE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" aria-label="The rooms and what they import">
<style>
text {{ font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; }}
.title {{ font-size: 22px; font-weight: 600; fill: #16202c; }}
.package {{ font-size: 15px; font-weight: 600; }}
.label {{ font-size: 15px; font-weight: 600; fill: #16202c; text-anchor: middle; }}
.purpose {{ font-size: 12px; fill: #4a5664; text-anchor: middle; }}
.legend {{ font-size: 14px; fill: #4a5664; }}
.arrow {{ fill: none; stroke: #6b7785; stroke-width: 1.5; marker-end: url(#head); }}
</style>
<defs>
<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" \
orient="auto"><path d="M0 1 L9 5 L0 9 z" fill="#6b7785"/></marker>
</defs>
<rect width="100%" height="100%" fill="#ffffff"/>
{body}
</svg>
"""
_COLORS = {  # panel, outline, text
  'data_pipeline': ('#eef6f3', '#2f7d66', '#1f5f4d'),
  'medm2t_jax': ('#eef3fb', '#3565a8', '#234a80'),
}


def _package_of(box: Box) -> str:
  return box.rooms[0].split('.')[0]


def _panel(package: str, height: float) -> str:
  inside = [box for box in BOXES if _package_of(box) == package]
  left = min(box.left for box in inside) - _PANEL
  right = max(box.right for box in inside) + _PANEL
  top = min(box.top for box in inside) - 40
  fill, _, text = _COLORS[package]
  return (
    f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" '
    f'height="{height - _PANEL - top:g}" rx="10" fill="{fill}"/>\n'
    f'<text class="package" x="{left + 14:g}" y="{top + 25:g}" fill="{text}">{package}/'
    '</text>'
  )


def _legend() -> list[str]:
  lines = (
    'An arrow goes from a room to what it imports.',
    'What follows from other arrows is not drawn,',
    'nor are the files for folders, locks and processes.',
    'A source is found by its name: nothing imports it.',
  )
  x = _MARGIN - _PANEL
  return [
    f'<text class="title" x="{x}" y="{_TOP - 14}">Rooms and what they import</text>',
    *(
      f'<text class="legend" x="{x}" y="{_TOP + 20 + 22 * number}">{line}</text>'
      for number, line in enumerate(lines)
    ),
  ]


def _arrow(curve: Curve) -> str:
  (x, y), *rest = curve
  points = ', '.join(f'{a:g} {b:g}' for a, b in rest)
  return f'<path class="arrow" d="M{x:g} {y:g} C{points}"/>'


def _box(box: Box) -> str:
  stroke = _COLORS[_package_of(box)][1]
  x = box.middle[0]
  return (
    f'<rect x="{box.left:g}" y="{box.top:g}" width="{box.right - box.left:g}" '
    f'height="{_HEIGHT}" rx="7" fill="#ffffff" stroke="{stroke}" stroke-width="1.4"/>\n'
    f'<text class="label" x="{x:g}" y="{box.top + 19:g}">{box.label}</text>\n'
    f'<text class="purpose" x="{x:g}" y="{box.top + 36:g}">{box.purpose}</text>'
  )


def main() -> None:
  """Writes the picture of the rooms to a file."""
  parser = argparse.ArgumentParser(description='Draws what the rooms import.')
  parser.add_argument('--out', type=Path, default=PICTURE, help='the SVG file')
  out = parser.parse_args().out
  out.write_text(picture(), encoding='utf-8')
  print(out)


if __name__ == '__main__':
  main()
