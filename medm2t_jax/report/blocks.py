"""Parts of a report; `template.py` renders them as HTML, `to_markdown` as Markdown.

All text is escaped except markupsafe's `Markup`, which only `plots.py` and this module
create, never from data.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from markupsafe import Markup

Cell = str | Markup


@dataclasses.dataclass(frozen=True)
class Heading:
  """A heading inside a section."""

  text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """A paragraph of plain text."""

  text: str


@dataclasses.dataclass(frozen=True)
class Callout:
  """A paragraph that must not be overlooked."""

  text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
  """A bulleted list."""

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
    alt: a description.
    caption: below it.
    width: of a column of text, or of the whole page.
    numbers: the drawn data; None if they are not offered.
  """

  source: str
  alt: str
  caption: str = ''
  width: Literal['column', 'page'] = 'column'
  numbers: Table | None = None


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Pictures side by side if there is room."""

  figures: Sequence[Figure]


@dataclasses.dataclass(frozen=True)
class Details:
  """Blocks behind a line that opens them.

  Attributes:
    title: the line.
    blocks: behind it.
    printed: open on paper; otherwise the line there says that the file has more.
  """

  title: str
  blocks: Sequence[Block]
  printed: bool = True


Block = Heading | Paragraph | Callout | Bullets | Table | Figure | Gallery | Details


@dataclasses.dataclass(frozen=True)
class Section:
  """A titled part of the page.

  Attributes:
    name: its anchor.
    title: its heading.
    blocks: its content.
    files: path beside the page -> HTML of a further page that a block links to.
    verdict: the first line: what it means, in one sentence.
  """

  name: str
  title: str
  blocks: Sequence[Block]
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  verdict: str = ''


def to_markdown(block: Block) -> str:
  """Markdown of a block, with escaped text; pictures become their description."""
  match block:
    case Heading(text):
      return f'### {_plain(text)}\n'
    case Paragraph(text):
      return f'{_plain(text)}\n'
    case Callout(text):
      return f'> **Note.** {_plain(text)}\n'
    case Bullets(items):
      return ''.join(f'- {_plain(item)}\n' for item in items)
    case Figure(_, alt):
      return f'*{_plain(alt)}*\n'
    case Gallery(figures):
      return '\n'.join(map(to_markdown, figures))
    case Details(title, blocks):
      return '\n'.join([f'### {_plain(title)}\n', *map(to_markdown, blocks)])
    case Table():
      return _table_markdown(block)


def link(address: str, text: str) -> Markup:
  """A table cell that links to another page of the report."""
  return Markup('<a href="{}">{}</a>').format(address, text)


def plain_cell(cell: Cell) -> str:
  """A table cell as text; '' for a picture."""
  if not isinstance(cell, Markup):
    return cell
  return '' if cell.startswith('<svg') else str(cell.striptags())


def _table_markdown(table: Table) -> str:
  line = lambda cells: '| ' + ' | '.join(cells) + ' |\n'
  rule = [
    '---:' if column in table.numeric else '---' for column in range(len(table.header))
  ]
  blank = [''] * (len(table.header) - 1)
  text = f'{_plain(table.caption)}\n\n' if table.caption else ''
  text += line([_plain(title) for title in table.header]) + line(rule)
  for row in table.rows:
    cells = [_plain(plain_cell(cell)) for cell in row]
    text += line([f'**{cells[0]}**', *blank] if len(cells) == 1 else cells)
  return text


def _plain(text: str) -> str:
  """Text as one line that Markdown does not interpret."""
  escaped = html.escape(' '.join(text.split()), quote=False)
  return re.sub(r'([\\`*_\[\]|#])', r'\\\1', escaped)
