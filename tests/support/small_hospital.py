"""A hand-made hospital of one subject in the layout of MIMIC-IV, for tests of staging."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pandas as pd

from data_pipeline.sources import Resources
from data_pipeline.sources.common.items import items
from data_pipeline.sources.mimic_iv import Settings, stage

EVENTS = 'subject_id,hadm_id,charttime,storetime,itemid,value,valuenum,valueuom'
HEADERS = {
  'hosp/patients': 'subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod',
  'hosp/admissions': 'subject_id,hadm_id,admittime,dischtime,deathtime,'
  'admission_type,admission_location,insurance,race,hospital_expire_flag',
  'icu/icustays': 'subject_id,hadm_id,stay_id,first_careunit,intime,outtime',
  'hosp/labevents': EVENTS + ',comments',
  'icu/chartevents': EVENTS,
  'hosp/omr': 'subject_id,chartdate,seq_num,result_name,result_value',
  'hosp/diagnoses_icd': 'subject_id,hadm_id,seq_num,icd_code,icd_version',
  'hosp/procedures_icd': 'subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version',
  'hosp/prescriptions': 'subject_id,hadm_id,starttime,drug',
  'ecg/record_list': 'subject_id,study_id,file_name,ecg_time,path',
  'ecg/machine_measurements': 'subject_id,study_id,'
  + ''.join(f'report_{index},' for index in range(18))
  + 'rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis',
}
# The tables of release 3.1 with all their columns, in their order there. The other
# releases have the same or fewer; none lacks one that is read.
LAYOUT_3_1 = {
  'hosp/admissions': 'subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,'
  'admit_provider_id,admission_location,discharge_location,insurance,language,'
  'marital_status,race,edregtime,edouttime,hospital_expire_flag',
  'icu/icustays': 'subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,'
  'outtime,los',
  'hosp/labevents': 'labevent_id,subject_id,hadm_id,specimen_id,itemid,'
  'order_provider_id,charttime,storetime,value,valuenum,valueuom,ref_range_lower,'
  'ref_range_upper,flag,priority,comments',
  'icu/chartevents': 'subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,'
  'itemid,value,valuenum,valueuom,warning',
  'hosp/prescriptions': 'subject_id,hadm_id,pharmacy_id,poe_id,poe_seq,'
  'order_provider_id,starttime,stoptime,drug_type,drug,formulary_drug_cd,gsn,ndc,'
  'prod_strength,form_rx,dose_val_rx,dose_unit_rx,form_val_disp,form_unit_disp,'
  'doses_per_24_hrs,route',
  'ecg/record_list': 'subject_id,study_id,file_name,ecg_time,path',
  'ecg/machine_measurements': 'subject_id,study_id,cart_id,ecg_time,'
  + ''.join(f'report_{index},' for index in range(18))
  + 'bandwidth,filtering,rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,'
  'qrs_axis,t_axis',
}
# One stay of 48 h from 2150-03-01 10:00; prediction at 2150-03-02 10:00.
ROWS = {
  'hosp/patients': ['1,F,60,2148,2011 - 2013,'],
  'hosp/admissions': [
    '1,10,2149-12-01 00:00:00,2149-12-09 00:00:00,,URGENT,PACU,Other,WHITE,0',
    '1,11,2150-03-01 08:00:00,2150-03-09 08:00:00,,URGENT,MOON BASE,Other,WHITE,1',
  ],
  'icu/icustays': ['1,11,100,MICU,2150-03-01 10:00:00,2150-03-03 10:00:00'],
  'hosp/diagnoses_icd': ['1,11,1,I501,10', '1,11,2,I10,10', '1,10,1,25000,9'],
  'hosp/prescriptions': [
    '1,10,2149-12-01 12:00:00,Metoprolol Tartrate', '1,11,2150-03-01 12:00:00,Lisinopril',
  ],
  'ecg/record_list': [
    '1,500,500,2150-02-20 10:00:00,files/p1/s500/500',
    '1,501,501,2150-02-10 10:00:00,files/p1000/p1/s501/501',
    '1,502,502,2150-03-01 12:00:00,files/p1/s502/502',
  ],
  'ecg/machine_measurements': [
    '1,500,Sinus rhythm,Odd new line' + ',' * 16
    + ',800,40,160,200,300,29999,32767,-30,65535',
  ],
}  # fmt: skip


class Hospital:
  """Raw tables in `root`: change `rows` and `headers`, then `stage`."""

  def __init__(self, root: Path):
    self.root = root
    self.rows = {name: list(ROWS.get(name, ())) for name in HEADERS}
    self.headers = dict(HEADERS)

  def lab(
    self, itemid, time, value, number='', unit='', comments='', stored='', hadm_id=11
  ):
    cells = [1, hadm_id, time, stored, itemid, value, number, unit, comments]
    self.rows['hosp/labevents'].append(','.join(f'"{cell}"' for cell in cells))

  def chart(self, itemid, time, value, number='', unit='', stored=''):
    cells = [1, 11, time, stored, itemid, value, number, unit]
    self.rows['icu/chartevents'].append(','.join(f'"{cell}"' for cell in cells))

  def use_layout(self, layout):
    """Gives tables other columns; those that are new hold text that nobody reads."""
    for name, header in layout.items():
      old, new = self.headers[name].split(','), header.split(',')
      assert set(old) <= set(new), name
      table = [dict(zip(old, row, strict=True)) for row in csv.reader(self.rows[name])]
      text = io.StringIO()
      csv.DictWriter(text, new, restval='P00X1').writerows(table)
      self.headers[name], self.rows[name] = header, text.getvalue().splitlines()

  def write(self, ending='.csv'):
    for name, rows in self.rows.items():
      text = '\n'.join([self.headers[name], *rows]) + '\n'
      path = self.root / (name + ending)
      path.parent.mkdir(parents=True, exist_ok=True)
      if ending == '.parquet':
        table = pd.read_csv(io.StringIO(text), dtype={'icd_code': str})
        for column in table.columns[table.columns.str.endswith('time')]:
          table[column] = pd.to_datetime(
            table[column], format='%Y-%m-%d %H:%M:%S', errors='coerce'
          )
        table.to_parquet(path)
        continue
      opened = gzip.open if ending.endswith('gz') else open
      with opened(path, 'wt') as file:
        file.write(text)

  def stage(self, task='mortality', ending='.csv', **options):
    self.write(ending)
    return self.run(task, **options)

  def run(self, task='mortality', **options):
    memory_limit = options.pop('memory_limit', '1GB')
    if task == 'cvd':
      options['mimic_iv_ecg'] = self.root / 'ecg'
    settings = Settings(mimic_iv=self.root, **options)
    return stage(task, self.root / 'staging', settings, Resources(memory_limit))

  def read(self, name):
    return pd.read_parquet(self.root / f'staging/{name}.parquet')

  def labs(self, modality='labs'):
    names = [item.itemid for item in items(modality)]
    table = self.read('events_labs').sort_values(['time', 'item'])
    return [
      (names[row.item], round(float(row.value), 4), row.category, round(float(row.time), 4))
      for row in table.itertuples()
    ]
