"""The frame of the report's charts: SVG pictures that need no file beside the page.

One style for all: colours that colour-blind readers can tell apart (Okabe and Ito), light
grid. The drawn numbers go with a picture, as a table.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import BarContainer
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import StepPatch

from medm2t_jax.report.blocks import Figure, Table
from medm2t_jax.report.text import shortened

COLORS = ('#0b5394', '#d55e00', '#007a5e', '#a3458b', '#8a6d00', '#3d8fc4', '#555555')
_INK, _GRID = '#1f2933', '#e3e8ee'
_STYLE: dict[Any, Any] = {
  'font.family': 'DejaVu Sans',
  'font.size': 10,
  'text.color': _INK,
  'axes.edgecolor': '#9aa5b1',
  'axes.labelcolor': _INK,
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.color': _GRID,
  'xtick.color': '#52606d',
  'ytick.color': '#52606d',
  'legend.frameon': False,
  'legend.fontsize': 9,
  'lines.linewidth': 2,
  # Text as paths, so that a page looks the same with all fonts; a fixed salt, so that the
  # same data give the same bytes.
  'svg.fonttype': 'path',
  'text.parse_math': False,
  'svg.hashsalt': 'medm2t',
}
_LETTERS = 11  # of a label in an inch


def figure(
  draw: Callable[[Axes], Table | None],
  alt: str,
  caption: str = '',
  *,
  inches: tuple[float, float] = (4.6, 3.6),
  width: Literal['column', 'page'] = 'column',
) -> Figure:
  """A picture in the style of the report.

  Args:
    draw: draws on the axes, and returns the numbers behind the picture where it draws
      anything but lines, steps and upright bars.
    alt: a description.
    caption: below the picture.
    inches: width and height.
    width: of the picture on the page.
  """
  with matplotlib.rc_context(_STYLE):
    canvas = Canvas(figsize=inches, facecolor='none', layout='constrained')
    svg = FigureCanvasSVG(canvas)
    axes = canvas.add_subplot(facecolor='none')
    numbers = draw(axes) or _drawn(axes)
    _shorten_names(axes, *inches)
    # `savefig` would draw everything once more, only for the layout.
    engine = canvas.get_layout_engine()
    assert engine is not None
    engine.execute(canvas)
    canvas.set_layout_engine('none')
    buffer = io.BytesIO()
    svg.print_svg(buffer, metadata={'Date': None})
  encoded = base64.b64encode(buffer.getvalue()).decode('ascii')
  return Figure(f'data:image/svg+xml;base64,{encoded}', alt, caption, width, numbers)


def _shorten_names(axes: Axes, width: float, height: float) -> None:
  """Long names, as those of phenotypes, would leave no room for what is drawn."""
  for label, inches in ((axes.xaxis.label, width), (axes.yaxis.label, height)):
    label.set_text(shortened(label.get_text(), int(_LETTERS * inches)))
  legend = axes.get_legend()
  for label in legend.get_texts() if legend else ():
    label.set_text(shortened(label.get_text(), int(_LETTERS * 0.7 * width)))


def columns_table(header: Sequence[str], *columns: np.ndarray) -> Table:
  """Numbers of a picture: a column (n) for each title."""
  return Table(header, [tuple(map(written, row)) for row in zip(*columns, strict=True)])


def written(value: float | None) -> str:
  """A number of a picture, in six digits; '' of None."""
  return '' if value is None else f'{value:.6g}'


def _drawn(axes: Axes) -> Table | None:
  """The data of lines, steps and vertical bars; lines without a label are only guides."""
  rows: list[tuple[str, str, str]] = []
  lines = axes.get_lines()
  named = [line for line in lines if not str(line.get_label()).startswith('_')] or lines
  for line in named:
    label = str(line.get_label())
    name = '' if label.startswith('_') else label
    x, y = (np.asarray(of, float) for of in line.get_data())
    rows += [(name, written(a), written(b)) for a, b in zip(x, y, strict=True)]
  for container in axes.containers:
    if not isinstance(container, BarContainer):
      continue
    # A histogram's label is that of its first bar.
    labels = [str(each.get_label()) for each in (container, container.patches[0])]
    name = next((label for label in labels if not label.startswith('_')), '')
    for bar in container.patches:
      middle, height = bar.get_x() + bar.get_width() / 2, bar.get_height()
      rows.append((name, written(middle), written(height)))
  for patch in axes.patches:
    if isinstance(patch, StepPatch):
      values, edges, _ = patch.get_data()
      for value, edge in zip(values, edges[:-1], strict=True):
        rows.append((str(patch.get_label()), written(edge), written(value)))
  header = ('series', axes.get_xlabel() or 'x', axes.get_ylabel() or 'y')
  return Table(header, rows) if rows else None


def cycle(names: Mapping[str, Any]) -> list[str]:
  """One colour per name."""
  return [COLORS[index % len(COLORS)] for index in range(len(names))]
