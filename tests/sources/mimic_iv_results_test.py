"""Text results: our rules against every string published with MedM2T, and edge cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.items import conversions, items, read_rows
from data_pipeline.sources.common.results import is_void, number_in, parse

REFERENCE = Path(__file__).resolve().parents[2] / '../shared/reference'
needs_reference = pytest.mark.skipif(
  not REFERENCE.exists(),
  reason='the published mapping files are not at ../shared/reference',
)
LABS = {item.itemid: item for item in items('labs')}
MERGED = {
  row['itemid']: row['item'] for row in read_rows('item_map') if row['modality'] == 'labs'
}


@pytest.mark.parametrize(
  ('text', 'number'),
  [
    ('<0.01', 0.009), ('LESS THAN 0.25.', 0.24), ('GREATER THAN 500.  VERIFIED.', 501),
    ('>600*', 601), ('3-5', 4), ('0-2.', 1), ('<1', 0.9), ('>10.0*.', 11), ('>=300', 300),
    ('150*.  150 IS THE HIGHEST', 150), ('-2', -2), ('7.35', 7.35),
    ('5 DAYS OLD', None), ('HEMOLYZED', None), ('', None), ('1.2.3', None),
    ('>1,000', None), ('GREATER THAN 5,000.', None), ('<1,5', None), ('>1.0E5', None),
    ('>1:10', None), ('1,234', None), ('1.234,5', None), ("1'234", None), ('1 234', None),
    ('1/2', None), ('3-5-7', None), ('1-2,5', None), ('>5-6', None), ('5E3', None),
    ('>600 MG', None), ('12:30', None), ('+', None), ('0X10', None), ('5%', None),
    ('\N{MINUS SIGN}2', None), ('1\u00a0000', None), ('٣', None), ('²', None),
  ],
)  # fmt: skip
def test_number_in(text, number):
  assert number_in(text) == number


@needs_reference
def test_published_texts_parse_to_the_published_values():
  voided = json.loads((REFERENCE / 'labevents_excluded.json').read_text())
  published = json.loads((REFERENCE / 'labevents_value_mapping.json').read_text())
  compared = 0
  for itemid, entry in published.items():
    if itemid not in MERGED:
      continue
    item = LABS[MERGED[itemid]]
    for text, value in entry.get('comments', {}).items():
      if text not in voided.get(itemid, ()):  # one text is in both files
        assert parse(item, itemid, None, text).number == value, (itemid, text)
        compared += 1
    for text, category in entry.get('mapping', {}).items():
      category = '>300' if (itemid, category) == ('51492', '>600') else category
      found = parse(item, itemid, text, None).category
      assert found is not None, (itemid, text)
      assert item.categories[found] == category, (itemid, text)
      compared += 1
  assert compared > 150


@needs_reference
def test_published_voiding_comments_are_voided():
  voided = json.loads((REFERENCE / 'labevents_excluded.json').read_text())
  for itemid, comments in voided.items():
    for text in comments:
      assert is_void(itemid, text), (itemid, text)


def test_other_comments_do_not_void():
  assert not is_void(50931, 'IF FASTING, 70-100 NORMAL, >125 PROVISIONAL DIABETES.')
  assert not is_void(50971, 'Specimen not Hemolyzed.')
  assert not is_void(50931, 'Hemolysis falsely elevates this test.')  # not for glucose
  assert is_void(50971, 'Hemolysis  falsely elevates this test.')
  assert not is_void(50971, None)


def test_egfr():
  gfr = LABS['50920']
  between = 'serum creatinine value of 1.0, .  estimated GFR (eGFR) is likely between 55 and 66 mL/min/1.73 m2, .  An eGFR < 60 suggests kidney disease'  # noqa: E501
  assert parse(gfr, 50920, None, between).number == 60.5
  above = 'value of 0.7, .  estimated GFR (eGFR) is likely >75 mL/min/1.73 m2, .  provided'
  assert parse(gfr, 50920, None, above).number == 75
  pair = 'value of 0.8,.  Estimated GFR = 69 if non African-American (mL/min/1.73 m2).  Estimated GFR = >75 if African-American (mL/min/1.73 m2).  For comparison, mean GFR for age group 70+ is 75 (mL/min/1.73 m2).  GFR<60 = Chronic Kidney Disease, GFR<15 = Kidney Failure.'  # noqa: E501
  assert parse(gfr, 50920, None, pair).number == 72


def test_placeholders_and_unreadable_texts():
  assert parse(LABS['50931'], 50931, '___', None).reason == 'unreadable text'
  assert parse(LABS['51487'], 51487, 'PURPLE', None).reason == 'unlisted category'
  assert parse(LABS['51487'], 51487, '___', 'POS*.').category == 1


def test_the_74_labs_and_their_limits():
  assert len(LABS) == 74
  assert sum(item.kind == 'categorical' for item in LABS.values()) == 13
  assert len(items('cvd_labs')) == 8
  assert len(items('vitals')) == 8
  assert len(items('vitals_categorical')) == 16
  for modality in ('labs', 'cvd_labs', 'vitals'):
    for item in items(modality):
      assert item.kind == 'categorical' or item.low < item.high


def test_conversions():
  assert conversions(LABS['50931'])['mmol/l'] == (18.016, 0.0)
  assert conversions(LABS['50983'])['mmol/l'] == (1.0, 0.0)
  scale, offset = conversions(Item('223762', 'Temperature', '°C'))['f']
  assert 98.6 * scale + offset == pytest.approx(37)
  assert 'furlong' not in conversions(LABS['50931'])
