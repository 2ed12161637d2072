"""Pages from templates: everything that is put in is escaped."""

from __future__ import annotations

from typing import Any

import jinja2
from markupsafe import Markup

from medm2t_jax.report.document import STYLE

_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('medm2t_jax.report'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
)


def render(name: str, **values: Any) -> str:
  """HTML of a template in `report/templates`; the style is that of all reports."""
  return _ENVIRONMENT.get_template(name).render(style=Markup(STYLE), **values)
