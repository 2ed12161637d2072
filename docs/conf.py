"""Configuration of Sphinx, which builds the site: `./run.sh docs`."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import medm2t_jax
from docs import reference

DOCS = Path(__file__).resolve().parent

project = 'medm2t_jax'
author = 'The medm2t_jax authors'
version = release = medm2t_jax.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
nitpicky = True
# Types in signatures without a link: of other packages, whose documentation needs a
# network, and of ours that users do not call.
nitpick_ignore_regex = [(r'py:.*', r'.*')]

myst_heading_anchors = 6
suppress_warnings = ['myst.header']  # a model card starts inside a report

highlight_language = 'text'  # of blocks that name none
default_role = 'literal'
smartquotes = False  # of --flags and 'values'
autoclass_content = 'both'  # with what __init__ takes
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # they are in the signature
napoleon_custom_sections = [('Class attributes', 'Attributes')]

html_theme = 'furo'
html_title = f'medm2t_jax {version}'
html_static_path = ['site']
html_css_files = ['site.css']
html_copy_source = False
html_show_copyright = False

# A folder of pages that lead to each other by relative links.
EXAMPLE = 'example_report'


class Options(SphinxDirective):
  """Describes the fields of the options at a path, as {options} config.data."""

  required_arguments = 1

  def run(self) -> list[nodes.Node]:
    """Describes every field of the options as a config field."""
    fields = reference.fields_of(self.arguments[0])
    return self.parse_text_to_nodes('\n'.join(each.of_config() for each in fields))


class Command(SphinxDirective):
  """The usage and the flags of a command, as {command} medm2t_jax.main."""

  required_arguments = 1

  def run(self) -> list[nodes.Node]:
    """Shows the usage of the command and describes every flag."""
    usage, flags = reference.command(self.arguments[0])
    told = nodes.literal_block(usage, usage, language='text')
    lines = [f'```{{program}} {self.arguments[0]}\n```\n']
    lines += [flag.of_command() for flag in flags]
    return [told, *self.parse_text_to_nodes('\n'.join(lines))]


def _readable(
  app: Sphinx, what: str, name: str, obj: Any, options: Any, call: str | None, result: Any
) -> tuple[str | None, Any]:
  """Signatures with `Array`, and without the additions of Linen to its modules."""
  del app, what, name, obj, options
  call, result = (
    re.sub(r'~?jaxlib\._jax\.Array', 'Array', text) if text else text
    for text in (call, result)
  )
  if call:
    call = re.sub(r', parent: .*_Sentinel object.*, name: str \| None = None', '', call)
  return call, result


def _dashes(app: Sphinx, document: nodes.document) -> None:
  """Dashes between a parameter and its meaning, without `smartquotes`."""
  del app
  for text in list(document.findall(nodes.Text)):
    if text == ' -- ':
      text.parent.replace(text, nodes.Text(' \u2013 '))


def _pages_stay_pages(app: Sphinx, document: nodes.document) -> None:
  """Makes links to HTML files open them instead of downloading them."""
  del app
  for node in list(document.findall(addnodes.download_reference)):
    if node['reftarget'].endswith('.html'):
      link = nodes.reference(
        '', '', *node.children, refuri=node['reftarget'], internal=False
      )
      node.replace_self(link)


def _copy_example(app: Sphinx, error: Exception | None) -> None:
  if error is None:
    for page in (DOCS / EXAMPLE).rglob('*.html'):
      target = Path(app.outdir) / EXAMPLE / page.relative_to(DOCS / EXAMPLE)
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(page, target)


def setup(app: Sphinx) -> None:
  """Registers everything in addition to the extensions."""
  app.add_directive('options', Options)
  app.add_directive('command', Command)
  app.connect('autodoc-process-signature', _readable)
  # Before Sphinx collects what is to be downloaded.
  app.connect('doctree-read', _pages_stay_pages, priority=100)
  app.connect('doctree-read', _dashes)
  app.connect('build-finished', _copy_example)
