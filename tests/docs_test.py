"""The code on the documentation's pages runs, links lead somewhere, nothing is left out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from configs import mortality
from data_pipeline.format.options import Options
from docs import reference

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
SITE = tuple(sorted(path for path in DOCS.rglob('*.md') if '_build' not in path.parts))
PAGES = (*(ROOT / f'{name}.md' for name in ('README', 'CONTRIBUTING', 'CHANGELOG')), *SITE)
CODE = ('medm2t_jax', 'data_pipeline', 'configs', 'benchmarks', 'tests', 'docs')


def test_the_code_of_the_model_page_runs_from_top_to_bottom():
  blocks = re.findall(r'```python\n(.*?)```', (DOCS / 'model.md').read_text(), re.DOTALL)
  assert len(blocks) == 8
  exec(compile('\n'.join(blocks), 'docs/model.md', 'exec'), {})


def test_options_that_are_told_of_exist():
  """On pages, in messages and in commands of the code."""
  known = mortality.get_config('small').unlock()
  code = [path for name in CODE[:4] for path in sorted((ROOT / name).rglob('*.py'))]
  # Experiments are told with the commands of their day.
  pages = [path for path in PAGES if path.name != 'experiments.md']
  for path in (*pages, *code):
    for name in re.findall(r'--config\.([a-z_.]*[a-z])=', path.read_text(encoding='utf-8')):
      of, _, rest = name.partition('.')
      if of == 'recipe':  # whose stages are those of the data
        of, rest = 'recipe', f'multimodal.{rest.partition(".")[2]}'
      fields = known
      for field in filter(None, (of, *rest.split('.'))):
        assert field in fields, f'{path.relative_to(ROOT)} tells of --config.{name}'
        fields = fields[field]


def headings(page):
  lines = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
  return [line.strip() for line in lines]


def anchors(page):
  """As GitHub makes them of headings."""
  plain = [re.sub(r'[^\w\- ]', '', line.lower()) for line in headings(page)]
  return {line.replace(' ', '-') for line in plain}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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


def test_every_page_is_in_one_toctree():
  text = (DOCS / 'index.md').read_text(encoding='utf-8')
  trees = re.findall(r'^```{toctree}\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
  listed = [line for tree in trees for line in tree.split('\n\n')[1].split()]
  pages = [page.relative_to(DOCS).with_suffix('').as_posix() for page in SITE]
  assert sorted([*listed, 'index']) == sorted(pages)


def test_every_option_is_described():
  for path, options in reference.OPTIONS.items():
    described = {each.name: each for each in reference.fields_of(path)}
    assert list(described) == [
      f'{path}.{each.name}' for each in dataclasses.fields(options)
    ]
    for each in described.values():
      assert each.text and each.kind != 'anything', each.name
      assert each.text in each.of_config() and each.kind in each.of_config()


def test_a_field_that_nobody_describes_is_an_error(monkeypatch):
  @dataclasses.dataclass(frozen=True)
  class Silent(Options):
    """Of nothing.

    Attributes:
      said: what it is.
    """

    said: int = 0
    unsaid: int = 0

  monkeypatch.setitem(reference.OPTIONS, 'silent', Silent)
  with pytest.raises(ValueError, match=r'Silent\.unsaid'):
    reference.fields_of('silent')


def test_what_a_field_may_be_is_told_in_words():
  fields = {each.name: each for each in reference.fields_of('config.recipe.STAGE')}
  warmup = fields['config.recipe.STAGE.warmup']
  assert warmup.kind == 'number, at least 0 and below 1'
  assert (warmup.default, warmup.text) == ('0.0', 'share of all steps.')
  assert fields['config.recipe.STAGE.schedule'].kind == "`'constant'` or `'cosine'`"
  assert fields['config.recipe.STAGE.batch_size'].default == ''
  inherited = {each.name for each in reference.fields_of('config.data')}
  assert 'config.data.max_recordings' in inherited


def directives(page, name):
  text = (DOCS / 'reference' / page).read_text(encoding='utf-8')
  return re.findall(rf'^## (\S+)(?:\n(?!##).*)*?\n```{{{name}}} (\S+)$', text, re.MULTILINE)


def test_the_reference_has_all_options_and_commands():
  """Each under a heading of its name, to which other pages lead."""
  assert directives('config.md', 'options') == [(path, path) for path in reference.OPTIONS]
  commands = directives('commands.md', 'command')
  assert sorted(commands) == [(name, name) for name in reference.commands()]


def test_a_command_tells_its_flags():
  told, flags = reference.command('medm2t_jax.predict')
  assert told.startswith('Predicts the samples of a prepared data set')
  by_name = {flag.name: flag for flag in flags}
  assert by_name['--format'].kind == 'table|meds'
  assert by_name['--min_coverage'].default == '0.5'
  assert all(flag.text for flag in flags)


def test_pre_commit_has_the_ruff_of_the_checks():
  [pinned] = re.findall(
    r'^ruff==(.*)$', (ROOT / 'constraints.txt').read_text(), re.MULTILINE
  )
  hook = (ROOT / '.pre-commit-config.yaml').read_text()
  assert re.findall(r'rev: v(.*)', hook) == [pinned]
