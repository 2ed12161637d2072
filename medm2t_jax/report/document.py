"""An HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from medm2t_jax.report.blocks import Section
from medm2t_jax.report.template import render


def document(
  *,
  kicker: str,
  title: str,
  subtitle: str,
  sections: Sequence[Section],
  summary: Markup | None = None,
  footer: str = '',
) -> str:
  """A whole file as HTML.

  Args:
    kicker: kind of page.
    title: its heading.
    subtitle: beside it.
    sections: of the page.
    summary: above the first section.
    footer: below the last one.
  """
  return render(
    'document.html',
    kicker=kicker,
    title=title,
    subtitle=subtitle,
    summary=summary or '',
    sections=sections,
    footer=footer,
  )
