"""Renders pages from templates; all inserted text is escaped."""

from __future__ import annotations

import base64
import csv
import io
import re
from typing import Any

import jinja2

from medm2t_jax.report.blocks import Table, plain_cell


def environment(package: str) -> jinja2.Environment:
  """The Jinja environment of the folder `templates` of a package."""
  made = jinja2.Environment(
    loader=jinja2.PackageLoader(package),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
  )
  made.filters |= {
    'kind': lambda block: type(block).__name__,
    'as_csv': _as_csv,
    'csv_address': _csv_address,
    'file_name': _file_name,
  }
  return made


def _as_csv(table: Table) -> str:
  """A table as CSV; headings across it fill the first column of their row."""
  text = io.StringIO()
  writer = csv.writer(text)
  writer.writerow(table.header)
  writer.writerows([plain_cell(cell) for cell in row] for row in table.rows)
  return text.getvalue()


def _csv_address(text: str) -> str:
  """A data URI with the file, so that the page needs no script and no other file."""
  return f'data:text/csv;base64,{base64.b64encode(text.encode()).decode("ascii")}'


def _file_name(text: str) -> str:
  return re.sub(r'[^a-z0-9]+', '_', text.lower()).strip('_')[:60] or 'table'


_ENVIRONMENT = environment('medm2t_jax.report')


def render(template: str, /, **values: Any) -> str:
  """HTML of a template in `report/templates`; only `Markup` is inserted unescaped."""
  return _ENVIRONMENT.get_template(template).render(**values)
