"""The code on the documentation's pages runs, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
PAGES = (ROOT / 'README.md', *sorted(DOCS.glob('*.md')))
CODE = ('medm2t_jax', 'data_pipeline', 'configs', 'benchmarks', 'tests', 'docs')


def test_the_code_of_the_model_page_runs_from_top_to_bottom():
  blocks = re.findall(r'```python\n(.*?)```', (DOCS / 'model.md').read_text(), re.DOTALL)
  assert len(blocks) == 8
  exec(compile('\n'.join(blocks), 'docs/model.md', 'exec'), {})


def headings(page):
  lines = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
  return [line.strip() for line in lines]


def anchors(page):
  """As GitHub makes them of headings."""
  plain = [re.sub(r'[^\w\- ]', '', line.lower()) for line in headings(page)]
  return {line.replace(' ', '-') for line in plain}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
  for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
    if '://' in link:
      continue
    name, _, anchor = link.partition('#')
    target = page.parent / name if name else page
    assert target.exists(), f'{page.name} links to {link}'
    assert not anchor or anchor in anchors(target), f'{page.name} links to {link}'


def test_references_in_code_lead_somewhere():
  files = [path for name in CODE for path in sorted((ROOT / name).rglob('*.py'))]
  for path in files:
    text = re.sub(r'\s*\n\s*(# )?', ' ', path.read_text(encoding='utf-8'))
    for name, heading in re.findall(r'docs/(\w+\.md)(?:,\s"([^"]+)")?', text):
      page = DOCS / name
      assert page.exists(), f'{path} names docs/{name}'
      assert not heading or heading in headings(page), f'{path}: docs/{name}, {heading}'
