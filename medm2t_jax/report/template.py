"""Pages from templates: everything that is put in is escaped."""

from __future__ import annotations

from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('medm2t_jax.report'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  keep_trailing_newline=True,
)


def render(name: str, **values: Any) -> str:
  """HTML of a template in `report/templates`; what is markup already is `Markup`."""
  return _ENVIRONMENT.get_template(name).render(**values)
