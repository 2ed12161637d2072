"""Pages from templates: everything that is put in is escaped."""

from __future__ import annotations

from typing import Any

import jinja2


def environment(package: str) -> jinja2.Environment:
  """Of the templates in the folder `templates` of a package."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader(package),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
  )


_ENVIRONMENT = environment('medm2t_jax.report')


def render(name: str, **values: Any) -> str:
  """HTML of a template in `report/templates`; what is markup already is `Markup`."""
  return _ENVIRONMENT.get_template(name).render(**values)
