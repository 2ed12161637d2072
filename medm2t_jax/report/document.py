"""An HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from medm2t_jax.report.blocks import Section, to_html
from medm2t_jax.report.template import render


def document(
  *,
  kicker: str,
  title: str,
  subtitle: str,
  sections: Sequence[Section],
  summary: str = '',
  footer: str = '',
) -> str:
  """A whole file as HTML.

  Args:
    kicker: what kind of page it is.
    title: its heading.
    subtitle: beside it.
    sections: of the page.
    summary: HTML above the first section.
    footer: below the last one.
  """
  return render(
    'document.html',
    kicker=kicker,
    title=title,
    subtitle=subtitle,
    summary=Markup(summary),
    sections=[
      {
        'name': section.name,
        'title': section.title,
        'content': Markup(''.join(map(to_html, section.blocks))),
      }
      for section in sections
    ],
    footer=footer,
  )
