"""The simulated hospital: layout, bytes, dirt, and the effects that were planted."""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from pathlib import Path

import duckdb
import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from data_pipeline import lock
from data_pipeline.format.schema import DataError
from data_pipeline.sources.simulated import (
  best_possible,
  chart,
  ecg_signal,
  hospital,
  labs,
  latent,
  write_hospital,
)

with warnings.catch_warnings():
  # wfdb 4.3 makes a call at import that pandas 3.1 deprecates
  warnings.filterwarnings('ignore', 'The inplace keyword')
  import wfdb

SHARED = Path(__file__).resolve().parents[2] / '../shared'
PATIENTS, SEED = 150, 7

# MIMIC-IV 2.2 and MIMIC-IV-ECG 1.0
COLUMNS = {
  'hosp/admissions': 'subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,'
  'admit_provider_id,admission_location,discharge_location,insurance,language,'
  'marital_status,race,edregtime,edouttime,hospital_expire_flag',
  'hosp/d_icd_diagnoses': 'icd_code,icd_version,long_title',
  'hosp/d_icd_procedures': 'icd_code,icd_version,long_title',
  'hosp/d_labitems': 'itemid,label,fluid,category',
  'hosp/diagnoses_icd': 'subject_id,hadm_id,seq_num,icd_code,icd_version',
  'hosp/labevents': 'labevent_id,subject_id,hadm_id,specimen_id,itemid,'
  'order_provider_id,charttime,storetime,value,valuenum,valueuom,ref_range_lower,'
  'ref_range_upper,flag,priority,comments',
  'hosp/omr': 'subject_id,chartdate,seq_num,result_name,result_value',
  'hosp/patients': 'subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod',
  'hosp/prescriptions': 'subject_id,hadm_id,pharmacy_id,poe_id,poe_seq,'
  'order_provider_id,starttime,stoptime,drug_type,drug,formulary_drug_cd,gsn,ndc,'
  'prod_strength,form_rx,dose_val_rx,dose_unit_rx,form_val_disp,form_unit_disp,'
  'doses_per_24_hrs,route',
  'hosp/procedures_icd': 'subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version',
  'hosp/services': 'subject_id,hadm_id,transfertime,prev_service,curr_service',
  'hosp/transfers': 'subject_id,hadm_id,transfer_id,eventtype,careunit,intime,outtime',
  'icu/chartevents': 'subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,'
  'itemid,value,valuenum,valueuom,warning',
  'icu/d_items': 'itemid,label,abbreviation,linksto,category,unitname,param_type,'
  'lownormalvalue,highnormalvalue',
  'icu/icustays': 'subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,'
  'outtime,los',
}
RECORD_LIST = 'subject_id,study_id,file_name,ecg_time,path'
MEASUREMENTS = (
  'subject_id,study_id,cart_id,ecg_time,'
  + ''.join(f'report_{line},' for line in range(18))
  + 'bandwidth,filtering,rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,'
  'qrs_axis,t_axis'
)
ECG_FAULTS = {'gap', 'flat', 'empty', 'short'}


def _header(path: Path) -> str:
  if path.suffix == '.gz':
    with gzip.open(path, 'rt') as file:
      return file.readline().strip()
  return path.read_text().split('\n', 1)[0]


def _hashes(root: Path) -> dict[str, str]:
  return {
    str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(root.rglob('*'))
    if path.is_file()
  }


@pytest.fixture(scope='module')
def raw(tmp_path_factory) -> Path:
  root = tmp_path_factory.mktemp('simulated') / 'raw'
  write_hospital(root, patients=PATIENTS, seed=SEED)
  return root


@pytest.fixture(scope='module')
def query(raw):
  """Runs SQL over the tables; {labevents} stands for the file of that name."""
  connection = duckdb.connect()
  files = {name.split('/')[1]: raw / f'mimic-iv/{name}.csv.gz' for name in COLUMNS}
  files |= {
    name: raw / f'mimic-iv-ecg/{name}.csv'
    for name in ('record_list', 'machine_measurements')
  }
  for name, path in files.items():
    connection.execute(f"create table {name} as select * from read_csv('{path}')")
  yield lambda text: connection.execute(text).fetchall()
  connection.close()


@pytest.fixture(scope='module')
def truth() -> dict[str, np.ndarray]:
  return best_possible.first_stays(3, 4000)


@pytest.mark.parametrize('table', COLUMNS)
def test_columns_are_those_of_mimic(raw, table):
  assert _header(raw / f'mimic-iv/{table}.csv.gz') == COLUMNS[table]


@pytest.mark.parametrize('table', COLUMNS)
def test_column_table_of_this_test_is_that_of_the_real_demo(table):
  path = SHARED / f'data/mimic-iv-demo/{table}.csv.gz'
  if not path.is_file():
    pytest.skip('the MIMIC-IV demo is not at ../shared/data')
  assert _header(path) == COLUMNS[table]


def test_ecg_layout(raw):
  root = raw / 'mimic-iv-ecg'
  assert _header(root / 'record_list.csv') == RECORD_LIST
  assert _header(root / 'machine_measurements.csv') == MEASUREMENTS
  listed = duckdb.sql(f"select * from read_csv('{root}/record_list.csv')").fetchall()
  assert len(listed) > 100
  for subject, study, name, _, path in listed:
    expected = f'files/p{str(subject)[:4]}/p{subject}/s{study}/{study}'
    assert path == expected and name == study
    assert (root / f'{path}.dat').is_file() and (root / f'{path}.hea').is_file()


def test_wfdb_reads_the_records_and_checksums_hold(raw):
  root = raw / 'mimic-iv-ecg'
  paths = sorted(root.rglob('*.hea'))
  whole = [p for p in paths if p.with_suffix('.dat').stat().st_size == 120_000][:25]
  for path in whole:
    record = wfdb.rdrecord(str(path.with_suffix('')), physical=False)
    assert record.sig_name == [
      'I', 'II', 'III', 'aVR', 'aVF', 'aVL', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6',
    ]  # fmt: skip
    assert record.fs == 500 and record.sig_len == 5000
    assert record.fmt == ['16'] * 12 and record.adc_gain == [200.0] * 12
    signal = record.d_signal
    assert record.init_value == signal[0].tolist()
    stored = np.array(record.checksum) % 65536
    np.testing.assert_array_equal(stored, signal.astype(np.int64).sum(0) % 65536)


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
  for name, seed in (('a', 1), ('b', 1), ('c', 2)):
    write_hospital(tmp_path / name, patients=5, seed=seed)
  assert _hashes(tmp_path / 'a') == _hashes(tmp_path / 'b')
  ours, other = _hashes(tmp_path / 'a'), _hashes(tmp_path / 'c')
  for table in ('icu/chartevents', 'hosp/labevents', 'hosp/patients'):
    assert ours[f'mimic-iv/{table}.csv.gz'] != other[f'mimic-iv/{table}.csv.gz']


def test_bytes_do_not_depend_on_how_rows_are_grouped(tmp_path, monkeypatch):
  write_hospital(tmp_path / 'a', patients=6, seed=1)
  monkeypatch.setattr('data_pipeline.sources.simulated.tables._FLUSH_ROWS', 700)
  write_hospital(tmp_path / 'b', patients=6, seed=1)
  assert _hashes(tmp_path / 'a') == _hashes(tmp_path / 'b')


def test_a_larger_hospital_begins_with_the_smaller_one(tmp_path):
  write_hospital(tmp_path / 'small', patients=4, seed=1)
  write_hospital(tmp_path / 'large', patients=7, seed=1)
  for table in COLUMNS:
    texts = [
      gzip.decompress((tmp_path / f'{name}/mimic-iv/{table}.csv.gz').read_bytes())
      for name in ('small', 'large')
    ]
    assert texts[1].startswith(texts[0])
  small = _hashes(tmp_path / 'small/mimic-iv-ecg/files')
  assert small and small.items() <= _hashes(tmp_path / 'large/mimic-iv-ecg/files').items()


def test_density_and_leaving_out_ecg_change_only_what_they_name(tmp_path):
  write_hospital(tmp_path / 'a', patients=6, seed=1)
  write_hospital(tmp_path / 'b', patients=6, seed=1, ecg=False, density=3)
  rows = [
    json.loads((tmp_path / name / 'simulated.json').read_text())['rows'] for name in 'ab'
  ]
  assert rows[1]['icu/chartevents'] > 2 * rows[0]['icu/chartevents']
  assert rows[0]['recordings'] > 0 and rows[1]['recordings'] == 0
  same = 'mimic-iv/hosp/admissions.csv.gz'
  assert (tmp_path / 'a' / same).read_bytes() == (tmp_path / 'b' / same).read_bytes()


def test_finished_hospital_is_reused(tmp_path, monkeypatch):
  write_hospital(tmp_path / 'raw', patients=2, seed=1)
  monkeypatch.setattr(hospital, '_write', lambda *_, **__: pytest.fail('written again'))
  write_hospital(tmp_path / 'raw', patients=2, seed=1)


@pytest.mark.parametrize(
  ('change', 'named'), [({'seed': 2}, 'seed'), ({'patients': 3}, 'patients')]
)
def test_hospital_of_other_parameters_is_an_error(tmp_path, change, named):
  write_hospital(tmp_path / 'raw', patients=2, seed=1)
  with pytest.raises(DataError, match=rf'simulated\.json: {named} is .*another folder'):
    write_hospital(tmp_path / 'raw', **{'patients': 2, 'seed': 1, **change})


def test_one_process_at_a_time_simulates_a_hospital(tmp_path):
  with (
    lock.exclusive(tmp_path / 'raw.lock', 'simulates', 'wait'),
    pytest.raises(DataError, match='another process simulates this hospital'),
  ):
    write_hospital(tmp_path / 'raw', patients=2, seed=1)
  assert not (tmp_path / 'raw').exists()


def test_other_folder_is_left_alone(tmp_path):
  (tmp_path / 'raw').mkdir()
  (tmp_path / 'raw/mine.txt').write_text('mine')
  with pytest.raises(DataError, match='not a simulated hospital'):
    write_hospital(tmp_path / 'raw', patients=2, seed=1)
  assert (tmp_path / 'raw/mine.txt').read_text() == 'mine'


@pytest.mark.parametrize(
  'change', [{'patients': 0}, {'patients': 10**7}, {'seed': -1}, {'density': 0.0}]
)
def test_arguments_out_of_range(tmp_path, change):
  with pytest.raises(DataError, match=next(iter(change))):
    write_hospital(tmp_path / 'raw', **{'patients': 2, 'seed': 1, **change})


def test_interrupted_hospital_is_not_taken_for_a_finished_one(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('disk full')

  with monkeypatch.context() as patch:
    patch.setattr(hospital.hosp, 'simulate_hosp', fail)
    with pytest.raises(OSError, match='disk full'):
      write_hospital(tmp_path / 'raw', patients=2, seed=1)
  assert not (tmp_path / 'raw').exists()
  write_hospital(tmp_path / 'raw', patients=2, seed=1)
  assert (tmp_path / 'raw/simulated.json').is_file()
  assert not (tmp_path / 'raw.partial').exists()


def test_items_are_those_of_the_mapping_table(query):
  path = SHARED / 'reference/items.csv'
  if not path.is_file():
    pytest.skip('the item table is not at ../shared/reference')
  rows = [line.split(',') for line in path.read_text('utf-8-sig').splitlines()[1:]]
  for table, dictionary in (('labevents', 'd_labitems'), ('chartevents', 'd_items')):
    mapped = {int(row[3]) for row in rows if row[0] == table}
    known = {item for (item,) in query(f'select itemid from {dictionary}')}
    seen = {item for (item,) in query(f'select distinct itemid from {table}')}
    assert mapped <= known and seen <= known
    assert len(mapped - seen) <= 2  # a rare item may be absent from a small hospital


DIRT = {
  'lab without admission': 'labevents where hadm_id is null',
  'voided sample': "labevents where comments = 'UNABLE TO REPORT.' and valuenum is null",
  'hemolysis': "labevents where comments like 'Hemolysis falsely elevates%'",
  'masked value': "labevents where value = '___' and valuenum is not null",
  'text below range': "labevents where comments like '<0.01.%' and valuenum is null",
  'text in value': "labevents where value = '<0.01'",
  'text above range': "labevents where comments like 'GREATER THAN 25.%'",
  'eGFR in comments': "labevents where itemid = 50920 and comments like '%likely between%'",
  'urine category': "labevents where itemid = 51466 and comments = 'SM*.'",
  'category in value': "labevents where value = 'INTUBATED.'",
  'two units of one lab': "labevents where itemid = 51249 and valueuom = 'g/dL'",
  'stored before drawn': 'labevents where storetime < charttime',
  'mistyped lab': 'labevents where itemid = 51250 and valuenum > 1000',
  'heart rate 6262': 'chartevents where itemid = 220045 and valuenum = 6262',
  'saturation 981023': 'chartevents where itemid = 220277 and valuenum = 981023',
  'negative pressure': 'chartevents where itemid in (220050, 220179) and valuenum < 0',
  'Fahrenheit': 'chartevents where itemid = 223761 and valuenum between 90 and 110',
  'Celsius': 'chartevents where itemid = 223762',
  'fraction of oxygen': 'chartevents where itemid = 223835 and valuenum <= 1',
  'percent of oxygen': 'chartevents where itemid = 223835 and valuenum > 20',
  'rhythm text': "chartevents where itemid = 220048 and value like 'AF%'",
  'ectopy': "chartevents where itemid = 224650 and value = 'PVCs'",
  'ectopy frequency': "chartevents where itemid = 224651 and value = 'Rare'",
  'warning': 'chartevents where warning = 1',
  'event after the stay': 'chartevents natural join icustays where charttime > outtime',
  'short stay': 'icustays where los < 1',
  'age above 89': 'patients where anchor_age = 91',
  'death after discharge': 'patients where dod is not null and subject_id not in '
  '(select subject_id from admissions where hospital_expire_flag = 1)',
  'blood pressure text': "omr where result_value like '%/%'",
  'ECG sentinel': 'machine_measurements where p_onset = 29999',
  'axis sentinel': 'machine_measurements where t_axis = 32767',
  'rr sentinel': 'machine_measurements where rr_interval = 65535',
  'empty measurement': 'machine_measurements where rr_interval + p_onset + p_end + '
  'qrs_onset + qrs_end + t_end + p_axis + qrs_axis + t_axis is null',
  'cardiovascular drug': "prescriptions where drug = 'Furosemide'",
  'other drug': "prescriptions where drug = 'Acetaminophen'",
  'ICD-9': 'diagnoses_icd where icd_version = 9',
  'ICD-10': 'diagnoses_icd where icd_version = 10',
  'procedure': "procedures_icd where icd_code in ('3606', '0270346')",
  'ECG outside admissions': 'record_list r where not exists (select 1 from admissions a '
  'where a.subject_id = r.subject_id and ecg_time between admittime and dischtime)',
}


@pytest.mark.parametrize('kind', DIRT)
def test_dirt_is_present(query, kind):
  assert query(f'select count(*) from {DIRT[kind]}')[0][0] > 0


@pytest.mark.parametrize('table', ['labevents', 'chartevents'])
def test_duplicate_rows_are_present(query, table):
  count = f"""select count(*) from (select subject_id, itemid, charttime, value, valuenum,
    storetime, hadm_id from {table} where valuenum is not null group by all
    having count(*) > 1)"""
  assert query(count)[0][0] > 0


def test_subjects_with_many_admissions_and_stays(query):
  for table in ('admissions', 'icustays'):
    most = query(f'select max(n) from (select count(*) n from {table} group by subject_id)')
    assert most[0][0] >= 4


def test_events_of_a_stay_belong_to_its_admission(query):
  assert query("""select count(*) from chartevents c left join icustays i
    on c.stay_id = i.stay_id and c.hadm_id = i.hadm_id and c.subject_id = i.subject_id
    where i.stay_id is null""") == [(0,)]
  assert query('select count(*) = count(distinct stay_id) from icustays') == [(True,)]
  assert query('select count(*) = count(distinct hadm_id) from admissions') == [(True,)]
  assert query('select count(*) = count(distinct study_id) from record_list') == [(True,)]


def test_laboratory_results_are_charted_again(query):
  copied, same = query("""select count(*), count(l.valuenum) from chartevents c
    left join (select distinct subject_id, charttime, valuenum from labevents
    where itemid = 50912 and coalesce(comments, '') = '') l using (subject_id, charttime)
    where c.itemid = 220615 and (l.valuenum is null or l.valuenum = c.valuenum)""")[0]
  assert copied > 200 and same / copied > 0.95


def test_sicker_patients_are_sampled_more():
  severity, lactates = [], []
  for index in range(300):
    patient = latent.simulate_patient(SEED, index)
    for stay in patient.admissions[0].stays[:1]:
      rows, _ = labs.simulate_labs(patient, SEED, 1.0)
      inside = (rows['charttime'] >= stay.intime) & (rows['itemid'] == 50813)
      severity.append(patient.admissions[0].state.severity)
      lactates.append(int(inside.any()))
  assert 0.2 < np.mean(lactates) < 0.9
  assert roc_auc_score(lactates, severity) > 0.65


def test_damaged_recordings(raw):
  found = set()
  for path in (raw / 'mimic-iv-ecg').rglob('*.dat'):
    data = np.fromfile(path, '<i2')
    if data.size < 60_000:
      found.add('short')
      continue
    signal = data.reshape(5000, 12)
    missing = signal == -32768
    if missing.all():
      found.add('empty')
    elif missing.any():
      found.add('gap')
    if (np.ptp(signal, axis=0) == 0).any() and not missing.all():
      found.add('flat')
  assert found == ECG_FAULTS


def test_limb_leads_obey_einthoven():
  rng = np.random.default_rng(0)
  heart = ecg_signal.draw_heart(rng, latent.Components(0, 0, 0, 0, 0), 1)
  beat = ecg_signal._beat(heart)
  lead = dict(zip(ecg_signal.LEADS, beat.T, strict=True))
  np.testing.assert_allclose(lead['I'] + lead['III'], lead['II'], atol=1e-9)
  np.testing.assert_allclose(lead['aVF'], (lead['II'] + lead['III']) / 2, atol=1e-9)
  np.testing.assert_allclose(lead['aVR'], -(lead['I'] + lead['II']) / 2, atol=1e-9)


def test_measurements_agree_with_the_signal(raw, query):
  """R peaks found in V5 give the RR interval that the machine reports."""
  rows = query("""select path, rr_interval from record_list join machine_measurements
    using (study_id) where rr_interval < 3000 and report_0 like 'Sinus%'
    and report_1 in ('Normal ECG', 'Anterior T wave changes are nonspecific') limit 30""")
  close = []
  for path, interval in rows:
    file = raw / f'mimic-iv-ecg/{path}.dat'
    data = np.fromfile(file, '<i2')
    if data.size < 60_000:
      continue
    lead = data.reshape(5000, 12)[:, ecg_signal.LEADS.index('V4')].astype(float)
    above = lead > 0.6 * np.percentile(lead, 99.8)
    rises = np.flatnonzero(above[1:] & ~above[:-1])
    rises = rises[np.insert(np.diff(rises) > 100, 0, True)]
    close.append(abs(np.diff(rises).mean() * 2 - interval) < 0.03 * interval)
  assert len(close) > 10 and np.mean(close) > 0.85


def test_true_effects(truth):
  """Swing and drift raise risk; potassium and T wave do so only together."""
  died = truth['died']
  assert 0.09 < died.mean() < 0.16
  for effect in ('swing', 'drift', 'pairing'):
    assert roc_auc_score(died, truth[effect]) > 0.58
    assert pearsonr(np.log(truth['days']), truth[effect])[0] > 0.15
  for marginal in ('potassium', 't_wave'):
    assert abs(roc_auc_score(died, truth[marginal]) - 0.5) < 0.04
    assert abs(pearsonr(np.log(truth['days']), truth[marginal])[0]) < 0.05
  assert 3.5 < truth['days'].mean() < 5 and 3.5 < truth['days'].std() < 6
  assert 0.4 < truth['has_ecg'].mean() < 0.6


@pytest.fixture(scope='module')
def observed() -> dict[str, np.ndarray]:
  """What can be read from the rows of first stays of at least 24 h, and the truth."""
  stays = best_possible.first_stays(SEED, 450)
  rows = []
  for index in stays['index'].tolist():
    patient = latent.simulate_patient(SEED, index)
    lab_rows, copies = labs.simulate_labs(patient, SEED, 1.0)
    events = chart.simulate_chart(patient, copies, SEED, 1.0)[0]
    stay = next(stay for a in patient.admissions for stay in a.stays)
    hours = (events['charttime'] - stay.intime) / 3600

    def series(items, events=events, hours=hours):
      keep = np.isin(events['itemid'], items) & (hours < 24)
      keep &= (events['valuenum'] > 10) & (events['valuenum'] < 300)
      return hours[keep], events['valuenum'][keep]

    time, rate = series([220045])
    hour = time.astype(int)
    counts = np.bincount(hour, minlength=24)
    hourly = np.bincount(hour, rate, minlength=24) / np.maximum(counts, 1)
    full = counts >= 5
    pressure_time, pressure = series([220052, 220181])
    potassium = (lab_rows['itemid'] == 50971) & (lab_rows['charttime'] >= stay.intime)
    potassium &= lab_rows['charttime'] < stay.intime + latent.DAY
    heart = ecg_signal.draw_heart(
      np.random.default_rng(index), patient.admissions[0].state, patient.t_wave
    )
    rows.append(
      {
        'fast': np.std(rate - hourly[hour]),
        'hourly_spread': hourly[full].std() if full.sum() > 5 else np.nan,
        'mean_rate': rate.mean(),
        'fall': pressure[pressure_time < 6].mean() - pressure[pressure_time > 18].mean(),
        'mean_pressure': pressure.mean(),
        'potassium': np.nanmedian(lab_rows['valuenum'][potassium]),
        't_anterior': heart.t_anterior,
      }
    )
  columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
  return {**columns, **{f'true_{name}': stays[name] for name in stays}}


def test_swing_is_visible_in_minutes_and_not_in_hours(observed):
  swing = observed['true_swing']
  assert pearsonr(observed['fast'], swing)[0] > 0.6
  assert abs(pearsonr(observed['mean_rate'], swing)[0]) < 0.15
  known = ~np.isnan(observed['hourly_spread'])
  assert known.mean() > 0.5
  assert abs(pearsonr(observed['hourly_spread'][known], swing[known])[0]) < 0.25
  assert roc_auc_score(observed['true_died'], observed['fast']) > 0.58


def test_drift_is_visible_in_the_trend_and_not_in_the_mean(observed):
  drift = observed['true_drift']
  assert pearsonr(observed['fall'], drift)[0] > 0.8
  assert abs(pearsonr(observed['mean_pressure'], drift)[0]) < 0.15
  assert roc_auc_score(observed['true_died'], observed['fall']) > 0.58


def test_pairing_is_visible_in_potassium_times_t_wave(observed):
  high = np.where(observed['potassium'] > 4.45, 1, -1)
  inverted = np.where(observed['t_anterior'] < 0, 1, -1)
  died = observed['true_died']
  assert np.mean(high == observed['true_potassium']) > 0.9
  assert np.mean(inverted == observed['true_t_wave']) == 1
  assert roc_auc_score(died, high * inverted) > 0.57
  assert abs(roc_auc_score(died, high) - 0.5) < 0.1
  assert abs(roc_auc_score(died, inverted) - 0.5) < 0.1


def test_cvd_classes():
  found = best_possible.index_recordings(5, 2500)
  shares = np.bincount(found['label'], minlength=4) / len(found['label'])
  np.testing.assert_allclose(shares, [0.68, 0.13, 0.075, 0.12], atol=0.03)
  for k in range(4):
    assert roc_auc_score(found['label'] == k, found['probabilities'][:, k]) > 0.72


def test_two_hundred_patients_fill_every_class_of_five_folds():
  """Seven subjects or more of every class: no fold has to do without one."""
  for seed in (0, 1, 2):
    found = best_possible.index_recordings(seed, 200)
    for k in range(4):
      assert len(set(found['subject'][found['label'] == k].tolist())) >= 7
