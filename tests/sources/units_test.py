"""Units: one key for the spellings of a unit, another one for every other unit."""

from __future__ import annotations

import itertools

import duckdb
import pytest

from data_pipeline.sources.common.items import read_rows
from data_pipeline.sources.common.units import key_sql, unit_key

SAME = (
  ('ug/L', 'µg/L', 'μg/L', 'mcg/L', 'UG/L', 'MCG/L', ' ug / L', 'Μg/L', 'ug/ℓ', 'µg／L'),
  ('umol/L', 'µmol/L', 'mcmol/L', 'UMOL/L', 'mcMol/L'),
  ('K/uL', 'k/µL', 'K/mcL', 'K/UL', 'k / ul'),
  ('10^9/L', '10^9/l', '10 ^ 9 / L'),
  ('10*3/uL', '10×3/µL', '10·3/mcL'),
  ('10^-3/L', '10^−3/L', '10^–3/L'),
  ('mg/dL', 'MG/DL', 'mg / dl', '(mg/dL)', 'mg/d\u202fL'),
  ('°C', 'C', 'ºc', '℃', '˚C', '° C'),
  ('°F', 'f', '℉'),
  ('mmHg', 'mm[Hg]', 'MM HG', 'mm Hg'),
  ('[IU]/L', 'IU/L', 'iu/l'),
  ('mL/min/1.73 m2', 'ML/MIN/1.73M2', 'mL/min/1.73m²'),
  ('mcm', 'µm'),
  ('g/L',), ('mg/L',), ('ng/L',), ('kg/L',), ('mmol/L',), ('mol/L',), ('mEq/L',),
  ('10^3/L',), ('uL',), ('mL',), ('dL',), ('%',), ('‰',), ('sec',), ('kPa',), ('/hpf',),
  ('#/hpf',), ('mm',), ('Ωm',), ('Åm',), ('mg_dL',), ('mg,dL',), ('mmc',),
)  # fmt: skip
NONE = ('', ' ', 'NA', 'n/a', 'None', '()', '°')


@pytest.mark.parametrize('spellings', SAME, ids=lambda each: each[0])
def test_all_spellings_of_a_unit_have_one_key(spellings):
  assert {unit_key(unit) for unit in spellings} == {unit_key(spellings[0])} != {''}


def test_different_units_have_different_keys():
  keys = [unit_key(spellings[0]) for spellings in SAME]
  assert len(set(keys)) == len(keys)
  assert {unit_key(unit) for unit in NONE} == {''}


def test_sql_gives_the_same_keys():
  units = [*itertools.chain(*SAME), *NONE, *(row['unit'] for row in read_rows('units'))]
  with duckdb.connect() as con:
    for unit in units:
      [(key,)] = con.execute(f'SELECT {key_sql("$unit")}', {'unit': unit}).fetchall()
      assert (key or '') == unit_key(unit), unit


def test_no_two_conversions_of_the_table_collide():
  seen = {}
  for row in read_rows('units'):
    for item in row['items'].split('|'):
      key = (unit_key(row['unit']), row['to'], item)
      assert key not in seen, (row, seen[key])
      seen[key] = row
