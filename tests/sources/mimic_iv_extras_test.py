"""`--extra`: medications, urine output and ventilation, on a hand-made hospital."""

from __future__ import annotations

import pytest

from data_pipeline import sources
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.preparation.build import prepare
from data_pipeline.sources import mimic_iv, simulated
from data_pipeline.sources.common.items import conversions, items, read_rows
from data_pipeline.sources.common.units import unit_key
from tests.support.small_hospital import Hospital

HEADERS = {
  'icu/inputevents': 'subject_id,starttime,endtime,storetime,itemid,amount,amountuom,rate,'
  'rateuom,statusdescription',
  'hosp/emar': 'subject_id,charttime,storetime,medication,event_txt',
  'icu/outputevents': 'subject_id,charttime,storetime,itemid,value,valueuom',
  'icu/procedureevents': 'subject_id,starttime,endtime,storetime,itemid,statusdescription',
}
NOREPINEPHRINE, FUROSEMIDE, RED_CELLS, VANCOMYCIN = 221906, 221794, 225168, 225798


def at(hour, minute=0):
  """A time of the stay, which is predicted at its hour 24."""
  day, hour = divmod(10 + hour, 24)
  return f'2150-03-{1 + day:02d} {hour:02d}:{minute:02d}:00'


class Ward(Hospital):
  """With the tables of the extras; what is charted is stored at once."""

  def __init__(self, root):
    super().__init__(root)
    self.headers |= HEADERS
    self.rows |= {name: [] for name in HEADERS}

  def _row(self, table, *cells):
    self.rows[table].append(','.join(str(cell) for cell in cells))

  def infuse(self, itemid, start, end, rate, unit='mcg/kg/min', stored=None,
             status='FinishedRunning'):  # fmt: skip
    self._row('icu/inputevents', 1, start, end, stored or start, itemid, 1, 'mg', rate,
              unit, status)  # fmt: skip

  def give(self, itemid, start, end, amount, unit, status='FinishedRunning'):
    self._row('icu/inputevents', 1, start, end, start, itemid, amount, unit, '', '', status)

  def scan(self, time, drug, event='Administered', stored=None):
    self._row('hosp/emar', 1, time, stored or time, drug, event)

  def output(self, itemid, time, value, unit='mL', stored=None):
    self._row('icu/outputevents', 1, time, stored or time, itemid, value, unit)

  def procedure(self, itemid, start, end, status='FinishedRunning'):
    self._row('icu/procedureevents', 1, start, end, start, itemid, status)

  def found(self, extra, **options):
    """Staged (item, value or category, hours) in order, and counts by table."""
    rows = self.stage(extra=extra, **options).cohort['rows']
    table = self.read(f'events_{extra}').sort_values(['time', 'item', 'category', 'value'])
    named = items(extra)
    return [
      (
        named[row.item].itemid,
        named[row.item].categories[row.category]
        if named[row.item].categories
        else round(float(row.value), 4),
        round(float(row.time), 4),
      )
      for row in table.itertuples()
    ], {name.removeprefix(f'{extra}: '): counts for name, counts in rows.items()}


@pytest.fixture
def ward(tmp_path):
  return Ward(tmp_path)


def test_an_infusion_is_its_rate_until_another_and_0_at_its_end(ward):
  ward.infuse(NOREPINEPHRINE, at(2), at(4), 0.1, status='ChangeDose/Rate')
  ward.infuse(NOREPINEPHRINE, at(4), at(6), 0.2, status='Stopped')
  ward.infuse(NOREPINEPHRINE, at(8), at(10), 0.05)
  ward.infuse(NOREPINEPHRINE, at(8), at(10), 0.05)
  found, counts = ward.found('medications')
  name = 'norepinephrine_rate'
  assert found == [
    (name, 0.1, -22), (name, 0.2, -20), (name, 0, -18), (name, 0.05, -16), (name, 0, -14),
  ]  # fmt: skip
  assert counts['medications'] == {'dropped: duplicate': 1, 'written to medications': 5}


def test_what_runs_past_the_prediction_is_its_start_and_its_rate(ward):
  ward.infuse(NOREPINEPHRINE, at(23), at(25), 0.1)
  ward.infuse(221289, at(24), at(24, 30), 0.3)
  ward.infuse(222315, at(23), at(24), 2.4, 'units/hour')
  ward.infuse(NOREPINEPHRINE, at(24, 1), at(26), 0.9)
  # The amount of what ends later is not known yet.
  ward.give(RED_CELLS, at(22), at(24), 300, 'ml')
  ward.give(RED_CELLS, at(23), at(24, 1), 350, 'ml')
  found, counts = ward.found('medications')
  assert found == [
    ('norepinephrine_rate', 0.1, -1), ('vasopressin_rate', 2.4, -1),
    ('epinephrine_rate', 0.3, 0), ('vasopressin_rate', 0, 0), ('red_cells_dose', 300, 0),
  ]  # fmt: skip
  assert counts['inputevents']['dropped: after the prediction time'] == 2


def test_what_runs_when_the_stay_begins_is_read_from_there_on(ward):
  ward.infuse(NOREPINEPHRINE, at(-3), at(1), 0.1)
  ward.infuse(NOREPINEPHRINE, at(-9), at(-8), 0.2)
  found, counts = ward.found('medications')
  assert found == [('norepinephrine_rate', 0.1, -24), ('norepinephrine_rate', 0, -23)]
  assert counts['inputevents'] == {
    'read: wanted items of the cohort': 2, 'dropped: before the stay': 1,
    'repaired: runs when the stay begins, read from there': 1,
  }  # fmt: skip


@pytest.mark.parametrize('availability', ['charttime', 'storetime'])
def test_what_was_stored_later(ward, availability):
  ward.infuse(NOREPINEPHRINE, at(20), at(22), 0.1, stored=at(21))
  ward.infuse(NOREPINEPHRINE, at(22), at(23), 0.2, stored=at(25))
  ward.scan(at(23), 'Aspirin', stored=at(25))
  found, counts = ward.found('medications', availability=availability)
  name, early = 'norepinephrine_rate', availability == 'storetime'
  if early:  # that it went on after 22 h is not known yet
    assert found == [(name, 0.1, -4), (name, 0, -2)]
  else:
    assert found == [
      (name, 0.1, -4), (name, 0.2, -2), (name, 0, -1), ('antiplatelet', 'GIVEN', -1),
    ]  # fmt: skip
  kind = 'dropped' if early else 'kept'
  for table in ('inputevents', 'emar'):
    assert counts[table][f'{kind}: stored after the prediction time'] == 1


def test_statuses_units_limits_and_doses(ward):
  ward.infuse(NOREPINEPHRINE, at(1), at(2), 0.7, status='Rewritten')
  ward.infuse(NOREPINEPHRINE, at(1), at(2), 0.8, status=' cancelled ')
  ward.infuse(NOREPINEPHRINE, at(1), at(2), 99)
  ward.infuse(NOREPINEPHRINE, at(1), at(2), 5, 'mcg/min')
  ward.infuse(NOREPINEPHRINE, at(3), at(2), 0.0003, 'mg/kg/min')
  ward.infuse(225150, at(4), at(30), 0.01, 'mcg/kg/min')
  ward.give(FUROSEMIDE, at(5), at(5, 1), 0.04, 'grams')
  ward.give(VANCOMYCIN, at(6), at(7), 1, 'dose')
  ward.give(VANCOMYCIN, at(8), at(9), 1, 'dose', status='Rewritten')
  ward.give(FUROSEMIDE, at(10), at(9), 20, 'mg')
  ward.infuse('', at(1), at(2), 1)
  found, counts = ward.found('medications')
  assert found == [
    ('norepinephrine_rate', 0.3, -21), ('dexmedetomidine_rate', 0.6, -20),
    ('furosemide_dose', 40, round(5 + 1 / 60 - 24, 4)), ('vancomycin', 'GIVEN', -18),
  ]  # fmt: skip
  assert counts['inputevents'] == {
    'read: wanted items of the cohort': 11,
    'dropped: rewritten or cancelled': 3,
    'dropped: missing or malformed time': 1,
    'dropped: missing or malformed itemid': 1,
    'dropped: outside physiologic limits (rate)': 1,
    'dropped: unknown unit (rate)': 1,
    'repaired: unit converted (rate)': 2,
    'repaired: unit converted (amount)': 1,
    'repaired: endtime before starttime is missing': 2,
  }


def test_emar_is_what_was_administered(ward):
  for event in ('Administered', 'Not Given', 'Stopped', '', 'Delayed Administered'):
    ward.scan(at(3), 'Vancomycin', event)
  ward.scan(at(4), 'Piperacillin-Tazobactam')
  ward.scan(at(5), 'Heparin Flush (10 units/ml)')
  ward.scan(at(6), 'Sodium Chloride 0.9%  Flush')
  ward.scan(at(24, 1), 'Aspirin')
  ward.scan('', 'Aspirin')
  ward.scan(at(7), '')
  found, counts = ward.found('medications')
  assert found == [('vancomycin', 'GIVEN', -21), ('piperacillin', 'GIVEN', -20)]
  assert counts['emar'] == {
    'read': 11, 'dropped: not administered': 3, 'dropped: no drug name': 1,
    'dropped: after the prediction time': 1, 'of no item': 2,
    'dropped: missing or malformed charttime': 1,
  }  # fmt: skip


def test_urine_output(ward):
  ward.output(226559, at(1), 100)
  ward.output(226559, at(3), 90)
  ward.output(226559, at(3), 90)
  ward.output(226560, at(3), 50)
  ward.output(227489, at(5), 500)
  ward.output(227488, at(5), 400)
  ward.output(226559, at(18), 300)
  ward.output(226559, at(24), 60)
  ward.output(226559, at(24, 1), 999)
  ward.output(226559, at(6), 5001)
  ward.output(226559, at(6), 5, 'L')
  ward.output(226571, at(7), 200)
  found, counts = ward.found('urine_output')
  assert found == [
    ('urine_volume', 100, -23), ('urine_volume', 140, -21), ('urine_rate', 70, -21),
    ('urine_volume', 100, -19), ('urine_rate', 50, -19), ('urine_volume', 300, -6),
    ('urine_volume', 60, 0), ('urine_rate', 10, 0),
  ]  # fmt: skip
  assert counts['outputevents'] == {
    'read': 10, 'dropped: outside physiologic limits': 1, 'dropped: unknown unit': 1,
  }  # fmt: skip


@pytest.mark.parametrize('availability', ['charttime', 'storetime'])
def test_urine_that_was_stored_later(ward, availability):
  ward.output(226559, at(20), 100)
  ward.output(226559, at(22), 80)
  ward.output(226560, at(22), 40, stored=at(25))
  found, counts = ward.found('urine_output', availability=availability)
  known = 80 if availability == 'storetime' else 120
  assert found[1:] == [('urine_volume', known, -2), ('urine_rate', known / 2, -2)]
  kind = 'dropped' if availability == 'storetime' else 'kept'
  assert counts['outputevents'][f'{kind}: stored after the prediction time'] == 1


def test_ventilation(ward):
  ward.chart(226732, at(1), 'High flow nasal cannula')
  ward.chart(226732, at(1), 'Jet pack')
  ward.chart(223849, at(2), 'CMV/ASSIST/AutoFlow', 49)  # its number is a code
  ward.chart(229314, at(3), 'SPONT', 9)
  ward.chart(223849, at(4), '', 49)
  ward.chart(223835, at(2), '0.5', 0.5)
  ward.chart(220339, at(2), '8', 8, 'cmH2O')
  ward.chart(220339, at(3), '800', 800, 'cmH2O')
  ward.chart(224685, at(24, 1), '450', 450, 'mL')
  # Of what lasts beyond the prediction only the start is an event.
  ward.procedure(225792, at(2), at(40))
  ward.procedure(224385, at(2), at(2, 1))
  ward.procedure(227194, at(25), at(25, 1))
  ward.procedure(227194, at(20), at(20, 1), 'Rewritten')
  found, counts = ward.found('ventilation')
  assert found == [
    ('226732', 'HIGH FLOW NASAL CANNULA', -23), ('223835', 50, -22), ('220339', 8, -22),
    ('223849', 'CONTROLLED', -22), ('airway_procedure', 'INTUBATION', -22),
    ('airway_procedure', 'INVASIVE VENTILATION', -22), ('223849', 'SUPPORTED', -21),
  ]  # fmt: skip
  assert counts['ventilation'] == {'dropped: duplicate': 0, 'written to ventilation': 7}
  assert counts['procedureevents'] == {
    'read': 4, 'dropped: after the prediction time': 1,
    'dropped: rewritten or cancelled': 1,
  }  # fmt: skip
  assert ward.read('grid_vitals')['value'].tolist() == [50]


def test_a_number_beside_other_words_stays_a_number(ward):
  ward.chart(220045, at(1), 'eighty', 80, 'bpm')
  ward.found('ventilation')
  assert ward.read('grid_vitals')['value'].tolist() == [80]


def test_an_extra_needs_a_table_and_tells_what_is_not_there(ward):
  for table in ('hosp/emar', 'icu/outputevents'):
    del ward.rows[table]
  ward.infuse(NOREPINEPHRINE, at(1), at(2), 0.1)
  cohort = ward.stage(extra='medications').cohort
  assert cohort['notes'] == [
    '--extra=medications: the raw data have no hosp/emar, so nothing of it is read.'
  ]
  with pytest.raises(DataError, match='reads icu/outputevents, but there is no such table'):
    ward.run(extra='urine_output')


def test_names_tasks_and_what_identifies_a_data_set(tmp_path):
  def settings(**values):
    return sources.make_settings('mimic_iv', {'mimic_iv': tmp_path, **values})

  with pytest.raises(DataError, match=r'--extra=medication: .*did you mean medications'):
    settings(extra='medication,urine_output')
  usual = settings()
  assert sources.recorded(settings(extra='')) == sources.recorded(usual)
  assert 'extra' not in sources.recorded(usual)
  one, other = 'ventilation, medications', 'medications,ventilation,medications'
  assert settings(extra=one) == settings(extra=other) != usual
  of_stays = 'mortality, los, aki, phenotypes'
  for task in ('cvd', 'cvd_all', 'readmission', 'decompensation'):
    with pytest.raises(DataError, match=f'not for task {task}; .*: {of_stays}.'):
      few = simulated.Settings(extra='ventilation', patients=1)
      simulated.stage(task, tmp_path, few, sources.Resources())
  with pytest.raises(DataError, match='--extra: not an option of source physionet2012'):
    sources.make_settings('physionet2012', {'extra': 'medications'})
  assert mimic_iv.extras.NAMES == ('medications', 'urine_output', 'ventilation')


def test_every_item_can_be_had_and_every_unit_read():
  mapped = {(row['modality'], row['item']) for row in read_rows('item_map')}
  named = {row['item'] for row in read_rows('emar_drugs')}
  for extra in ('medications', 'ventilation'):
    for item in items(extra):
      assert (extra, item.itemid) in mapped or item.itemid in named
      assert item.categories or (item.low is not None and item.high is not None)
      if item.unit:
        assert conversions(item)[unit_key(item.unit)] == (1, 0)
  assert named <= {item.itemid for item in items('medications')}


def test_a_data_set_has_them_beside_the_usual_modalities(tmp_path):
  def made(name, **more):
    return open_dataset(prepare(
      source='simulated', task='mortality', out=tmp_path / name, patients=40, seed=3,
      workers=1, ecgs=False, raw=tmp_path / 'raw', subject_key=tmp_path / 'key', **more,
    ))  # fmt: skip

  usual, whole = made('usual'), made('whole', extra=','.join(mimic_iv.extras.NAMES))
  assert whole.schema.names == (*usual.schema.names, *mimic_iv.extras.NAMES)
  for column in ('sample_id', 'label', 'n_labs', 'n_vitals'):
    assert whole.index[column].tolist() == usual.index[column].tolist()
  for extra in mimic_iv.extras.NAMES:
    assert (whole.index[f'n_{extra}'] > 0).mean() > 0.5
