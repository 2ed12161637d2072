"""Settings of sources: what identifies a data set; the interface that all keep to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from data_pipeline import sources
from data_pipeline.sources import setting


@dataclasses.dataclass(frozen=True)
class Settings:
  folder: Path = setting('A folder.')
  rules: Path = setting('A file.')
  count: int = setting('A number.', default=3)
  kept: Path | None = setting('Not recorded.', default=None, recorded=False)
  other: str | None = setting('Not given.', default=None)
  young: str = setting('A young one.', default='old', recorded='unless default')


def test_a_file_is_identified_by_its_content(tmp_path):
  rules = tmp_path / 'rules.csv'
  rules.write_text('a')
  settings = Settings(tmp_path, rules, kept=tmp_path)
  before = sources.recorded(settings)
  assert set(before) == {'folder', 'rules', 'count'}
  assert before['folder'] == str(tmp_path) and before['count'] == 3
  assert sources.recorded(settings) == before
  young = dataclasses.replace(settings, young='new')
  assert sources.recorded(young) == {**before, 'young': 'new'}
  rules.write_text('b')
  after = sources.recorded(settings)
  assert after['rules'] != before['rules']
  assert {**after, 'rules': before['rules']} == before


@pytest.mark.parametrize('name', sources.names())
def test_every_source_keeps_to_the_interface(name):
  source = sources.load(name)
  assert source.TASKS != ()
  assert all(task.isidentifier() for task in source.TASKS or ())
  assert callable(source.stage)
  for field in dataclasses.fields(source.Settings):
    assert field.metadata['help'].endswith('.'), field.name


def test_a_flag_means_one_thing_in_all_sources():
  """The command defines it once, with the type that the first of them gives it."""
  types = {}
  for name in sources.names():
    for field in dataclasses.fields(sources.load(name).Settings):
      if field.type in ('int', 'bool'):
        types.setdefault(field.name, set()).add(field.type)
      else:
        types.setdefault(field.name, set()).add('text')
  assert not {name: each for name, each in types.items() if len(each) > 1}
