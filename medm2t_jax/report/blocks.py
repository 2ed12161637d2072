"""Parts of a report, rendered as HTML or Markdown. All text is escaped.

`Markup` is the one way to put HTML on a page unescaped; it is built by `plots.py` and
here only, never from data.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Markup:
  """HTML of our own making."""

  code: str


Cell = str | Markup


@dataclasses.dataclass(frozen=True)
class Heading:
  text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
  text: str


@dataclasses.dataclass(frozen=True)
class Callout:
  """A paragraph that must not be overlooked."""

  text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
  items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table.

  Attributes:
    header: column titles.
    rows: cells; a row of one cell is a heading across the table.
    numeric: indices of right-aligned columns.
    caption: what it shows, above it.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  numeric: Sequence[int] = ()
  caption: str = ''


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture.

  Attributes:
    source: a data URI.
    alt: says what is seen.
    caption: below it.
    width: that of a column of text, or of the whole page.
  """

  source: str
  alt: str
  caption: str = ''
  width: Literal['column', 'page'] = 'column'


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Figures side by side where there is room."""

  figures: Sequence[Figure]


@dataclasses.dataclass(frozen=True)
class Details:
  """Blocks behind a line that opens them; always open on paper."""

  title: str
  blocks: Sequence[Block]


Block = Heading | Paragraph | Callout | Bullets | Table | Figure | Gallery | Details


@dataclasses.dataclass(frozen=True)
class Section:
  """A titled part of the page; `name` is its anchor."""

  name: str
  title: str
  blocks: Sequence[Block]


def to_html(block: Block) -> str:
  """HTML of a block, text escaped."""
  match block:
    case Heading(text):
      return f'<h3>{html.escape(text)}</h3>'
    case Paragraph(text):
      return f'<p>{html.escape(text)}</p>'
    case Callout(text):
      return f'<p class="warning">{html.escape(text)}</p>'
    case Bullets(items):
      listed = ''.join(f'<li>{html.escape(item)}</li>' for item in items)
      return f'<ul>{listed}</ul>'
    case Figure(source, alt, caption, width):
      label = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
      image = f'<img src="{html.escape(source)}" alt="{html.escape(alt)}">'
      wide = ' class="wide"' if width == 'page' else ''
      return f'<figure{wide}>{image}{label}</figure>'
    case Gallery(figures):
      return f'<div class="gallery">{"".join(map(to_html, figures))}</div>'
    case Details(title, blocks):
      inner = ''.join(map(to_html, blocks))
      summary = f'<summary>{html.escape(title)}</summary>'
      return f'<details>{summary}{inner}</details>'
    case Table():
      return _table_html(block)


def to_markdown(block: Block) -> str:
  """Markdown of a block, text escaped; pictures become their description."""
  match block:
    case Heading(text):
      return f'### {_plain(text)}\n'
    case Paragraph(text):
      return f'{_plain(text)}\n'
    case Callout(text):
      return f'> **Note.** {_plain(text)}\n'
    case Bullets(items):
      return ''.join(f'- {_plain(item)}\n' for item in items)
    case Figure(_, alt, _, _):
      return f'*{_plain(alt)}*\n'
    case Gallery(figures):
      return '\n'.join(map(to_markdown, figures))
    case Details(title, blocks):
      return '\n'.join([f'### {_plain(title)}\n', *map(to_markdown, blocks)])
    case Table():
      return _table_markdown(block)


def link(address: str, text: str) -> Markup:
  """A table cell that leads to another page of the report."""
  return Markup(f'<a href="{html.escape(address)}">{html.escape(text)}</a>')


def cell_html(cell: Cell) -> str:
  """HTML of a table cell."""
  return cell.code if isinstance(cell, Markup) else html.escape(cell)


def _table_html(table: Table) -> str:
  side = lambda column: ' class="number"' if column in table.numeric else ''
  header = ''.join(
    f'<th scope="col"{side(column)}>{html.escape(title)}</th>'
    for column, title in enumerate(table.header)
  )
  body = []
  for row in table.rows:
    if len(row) == 1:
      span = len(table.header)
      cells = f'<th class="group" scope="rowgroup" colspan="{span}">'
      cells += f'{cell_html(row[0])}</th>'
    else:
      cells = ''.join(
        f'<td{side(column)}>{cell_html(cell)}</td>' for column, cell in enumerate(row)
      )
    body.append(f'<tr>{cells}</tr>')
  caption = f'<caption>{html.escape(table.caption)}</caption>' if table.caption else ''
  return (
    f'<div class="scroll"><table>{caption}<thead><tr>{header}</tr></thead>'
    f'<tbody>{"".join(body)}</tbody></table></div>'
  )


def _table_markdown(table: Table) -> str:
  line = lambda cells: '| ' + ' | '.join(cells) + ' |\n'
  rule = [
    '---:' if column in table.numeric else '---' for column in range(len(table.header))
  ]
  blank = [''] * (len(table.header) - 1)
  text = f'{_plain(table.caption)}\n\n' if table.caption else ''
  text += line([_plain(title) for title in table.header]) + line(rule)
  for row in table.rows:
    cells = [_plain(cell) if isinstance(cell, str) else '' for cell in row]
    text += line([f'**{cells[0]}**', *blank] if len(cells) == 1 else cells)
  return text


def _plain(text: str) -> str:
  """Text on one line that Markdown shows as it is."""
  escaped = html.escape(' '.join(text.split()), quote=False)
  return re.sub(r'([\\`*_\[\]|#])', r'\\\1', escaped)
