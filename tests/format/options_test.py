"""Options say what is wrong with a value, where it stands, and what is allowed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from data_pipeline.format.options import Count, Limits, NotNegative, Options, Rate, nearest
from data_pipeline.format.schema import DataError

Cell = Literal['lstm', 'gru']
CellOrNone = Literal['lstm', 'gru', 'none']


@dataclasses.dataclass(frozen=True)
class Inner(Options):
  width: Count = 8
  dropout: Rate = 0.1
  cell: CellOrNone = 'gru'


@dataclasses.dataclass(frozen=True)
class Outer(Options):
  name: str
  cuts: Mapping[str, tuple[Cell, tuple[float, ...]]]
  stages: Mapping[str, Inner]
  weights: tuple[NotNegative, ...] = ()
  deep: bool = False
  inner: Inner = dataclasses.field(default_factory=Inner)
  free: Any = None


def made() -> Outer:
  return Outer('a', {'labs': ('gru', (1.0, 2.0))}, {'labs': Inner(), 'ecg': Inner(4)})


def test_they_come_back_from_json():
  fields = json.loads(json.dumps(made().to_fields()))
  assert Outer.from_fields(fields, 'config') == made()
  assert isinstance(fields['cuts']['labs'], list)


def test_whole_numbers_become_numbers_and_lists_tuples():
  one: Any = [1, 2]
  outer = dataclasses.replace(made(), weights=one)
  assert outer.weights == (1.0, 2.0) and type(outer.weights[0]) is float


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('name', 1, r"c\.name=1: must be a text"),
    ('deep', 1, r"c\.deep=1: must be True or False"),
    ('inner.width', True, r"c\.inner\.width=True: must be a whole number"),
    ('inner.width', 2.0, r"c\.inner\.width=2\.0: must be a whole number"),
    ('inner.width', 0, r"c\.inner\.width=0: must be at least 1"),
    ('inner.dropout', 1, r"c\.inner\.dropout=1: must be at least 0 and below 1"),
    ('inner.dropout', float('nan'), r"c\.inner\.dropout=nan: must be at least 0"),
    ('inner.cell', 'gruu', r"cell='gruu' is unknown: did you mean 'gru'\? known"),
    ('inner.cell', 'x', r"cell='x' is unknown; known: lstm, gru, none"),
    ('inner.widht', 4, r"c\.inner\.widht is unknown: did you mean 'width'\?"),
    ('inner.width.more', 4, r"c\.inner\.width has no 'more'"),
    ('stages.lab.width', 4, r"c\.stages\.lab is unknown: did you mean 'labs'\?"),
    ('stages.labs.width', 'x', r"c\.stages\.labs\.width='x': must be a whole number"),
    ('weights', (1.0, -1.0), r"c\.weights\[1\]=-1\.0: must be at least 0"),
    ('weights', 3.0, r"c\.weights=3\.0: must be a tuple"),
    ('cuts', 3, r"c\.cuts=3: must be a mapping"),
    ('cuts.labs', ('gru',), r"c\.cuts\.labs=\('gru',\): must have 2 parts"),
    ('cuts.labs', ('rnn', ()), r"c\.cuts\.labs\[0\]='rnn' is unknown"),
    ('inner', 3, r"c\.inner=3: its fields are missing"),
  ],
)  # fmt: skip
def test_what_does_not_suit_is_named_with_its_place(path, value, message):
  with pytest.raises(DataError, match=message):
    made().changed({path: value}, 'c')


def test_values_are_checked_however_options_are_made():
  for make in (lambda: Inner(width=0), lambda: dataclasses.replace(Inner(), width=0)):
    with pytest.raises(DataError, match='width=0'):
      make()
  fields = made().to_fields()
  without = {name: value for name, value in fields['inner'].items() if name != 'cell'}
  for wrong, message in (
    ({**fields, 'inner': without}, r'config\.inner\.cell is missing'),
    ({**fields, 'nam': 'b'}, r"config\.nam is unknown: did you mean 'name'"),
  ):
    with pytest.raises(DataError, match=message):
      Outer.from_fields(wrong, 'config')


def test_changes_leave_the_original_alone_and_reach_every_path():
  outer = made()
  other = outer.changed(
    {
      'inner.width': 2,
      'inner.cell': 'none',
      'stages.ecg.dropout': 0.2,
      'stages.static': Inner(1),
      'cuts.vitals': ('lstm', (3.0,)),
    }
  )
  assert outer == made()
  assert other.inner == Inner(2, cell='none')
  assert other.stages == {'labs': Inner(), 'ecg': Inner(4, 0.2), 'static': Inner(1)}
  assert other.cuts == {'labs': ('gru', (1.0, 2.0)), 'vitals': ('lstm', (3.0,))}
  assert {*other.paths()} >= {'name', 'inner.width', 'stages.static.cell', 'cuts.vitals'}


def test_limits_are_said_in_words():
  assert str(Limits(above=0, most=2)) == 'above 0 and at most 2'
  assert Limits(above=0).hold(1e-9) and not Limits(above=0).hold(0)
  assert nearest('lab', ['labs', 'ecg']) == ": did you mean 'labs'? known: labs, ecg"
