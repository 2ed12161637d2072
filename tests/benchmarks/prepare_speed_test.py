"""The benchmark of the preparation, with few rows: it runs and reports what it says."""

from __future__ import annotations

import gzip

from tests.support import benchmark


def test_report_and_rows(tmp_path):
  report = benchmark.report(
    '-m', 'benchmarks.prepare', f'--raw={tmp_path}', '--repeats=1', '--workers=1',
    '--chartevents_rows=20000', '--labevents_rows=5000', '--ecg_patients=3',
  )  # fmt: skip
  [scale] = report['growth']
  assert scale['rows'] == 25_000
  for name in ('time_vs_gunzip', 'peak_rss_mb', 'rows_per_s', 'ecg_per_s_per_core'):
    assert report[name] > 0
  # More than an interpreter with TensorFlow's data set library, less than the machine.
  assert 100 < report['peak_rss_mb'] < 4000
  assert scale['time_vs_gunzip'] > 1
  for table, rows in (('icu/chartevents', 20_000), ('hosp/labevents', 5_000)):
    [path] = tmp_path.glob(f'*/{table}.csv.gz')
    with gzip.open(path, 'rt') as file:
      subjects = [line.split(',')[table.startswith('hosp')] for line in file][1:]
    assert len(subjects) == rows
    assert subjects == sorted(subjects)
