"""Renders the explorer's page: one HTML file that runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from markupsafe import Markup

from medm2t_jax.report.template import environment

_ROOM = 'medm2t_jax.serving.explorer'
_ENVIRONMENT = environment(_ROOM)
# NaN is not JSON and must not reach a page.
_ENVIRONMENT.policies['json.dumps_kwargs'] = {'allow_nan': False, 'sort_keys': False}


def page(story: Mapping[str, Any]) -> str:
  """HTML of a story (`medm2t_jax.serving.explorer.story`)."""
  script = _file('explorer.js')
  return _ENVIRONMENT.get_template('patient.html').render(
    title=f'{story["title"]}: patient explorer',
    story=story,
    style=Markup(_file('explorer.css')),
    script=Markup(script),
    script_hash=_hash(script),
  )


def form(title: str, predicted: str, version: str, source: str, example: str) -> str:
  """HTML of a form that posts a patient's request to /explore.

  Args:
    title: of the task.
    predicted: predicted outcome and horizon.
    version: of the model.
    source: of the model's training data.
    example: a request that works.
  """
  return _ENVIRONMENT.get_template('form.html').render(
    title=title,
    predicted=predicted,
    version=version,
    source=source,
    example=example,
    style=Markup(_file('explorer.css')),
    script_hash='',
  )


def _file(name: str) -> str:
  return (resources.files(_ROOM) / 'templates' / name).read_text(encoding='utf-8')


def _hash(script: str) -> str:
  """The hash by which the page's policy allows its script."""
  return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
