"""Drug names to ATC groups: the shipped table, and a user's own."""

from __future__ import annotations

import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources.mimic_iv import Settings
from data_pipeline.sources.mimic_iv.drugs import GROUPS, groups_of, rules


@pytest.mark.parametrize(
  ('drug', 'groups'),
  [
    ('Metoprolol Succinate XL', ('C07A',)), ('HydrALAzine', ('C02D',)),
    ('Lidocaine 5% Patch', ()), ('Aspirin EC', ()), ('NIFEdipine CR', ('C08C',)),
    ('Sacubitril-Valsartan (24mg-26mg)', ('C09D',)), ('Isosorbide Dinitrate', ('C01D',)),
    ('NORepinephrine', ('C01C',)), ('Fish Oil (Omega 3)', ('C10A',)),
    ('Hydrochlorothiazide', ('C03A',)), ('Sodium Chloride 0.9%  Flush', ()),
  ],
)  # fmt: skip
def test_the_shipped_table(drug, groups):
  assert groups_of(drug, rules()) == groups


def test_the_groups_are_those_of_the_paper_and_each_is_reachable():
  assert len(GROUPS) == 27
  assert {rule.group for rule in rules()} == set(GROUPS)


def test_a_users_rows_replace_and_add(tmp_path):
  path = tmp_path / 'drugs.csv'
  path.write_text(
    '# ours\nname,note,unless,group\n'
    'Metoprolol,"moved, for a test",topical|GEL,C10A\nhydralazine,out,,\n'
    'zorblax,new,,C01A\n'
  )
  known = rules(path)
  assert groups_of('Metoprolol Succinate XL', known) == ('C10A',)
  assert groups_of('Metoprolol gel', known) == ()
  assert groups_of('HydrALAzine', known) == ()
  assert groups_of('Zorblax 5 mg', known) == ('C01A',)
  assert groups_of('NIFEdipine CR', known) == ('C08C',)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('group,name\nC01A,x\n', 'no column unless'),
    ('', 'no column group'),
    ('group,name,unless\nC01A,x,\nC99Z,y,\n', 'line 3: unknown group C99Z'),
    ('group,name,unless\n#\nC01A,,\n', 'line 3: no drug name'),
    ('group,name,unless\nC01A,x\n', 'line 2: not 3 cells'),
    (b'group,name,unless\nC01A,\xff,\n', 'not UTF-8'),
  ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, text, message):
  path = tmp_path / 'drugs.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(DataError, match=f'--drug_groups=.*drugs.csv.*{message}'):
    rules(path)


def test_an_absent_file_and_one_that_would_do_nothing(tmp_path):
  path = tmp_path / 'drugs.csv'
  with pytest.raises(DataError, match=r'--drug_groups=.*no such file'):
    Settings(mimic_iv=tmp_path, static='extended', drug_groups=path)
  path.touch()
  with pytest.raises(DataError, match='only --static=extended'):
    Settings(mimic_iv=tmp_path, drug_groups=path)
