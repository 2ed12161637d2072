"""Measures speed and memory of the preparation.

  python -m benchmarks.prepare --raw=DIR --scales=1,2,4

Writes hospitals with many event rows (`benchmarks/large_hospital.py`) to DIR, where the
next run reuses them. For each hospital, `--repeats` times: `gzip -dc` of
chartevents.csv.gz and labevents.csv.gz to /dev/null, then the whole preparation from raw
tables to finished shards (task mortality, no ECG) in a fresh process. Then ECGs: read,
conditioned and packed in one thread, and only read by wfdb.
The last line on stdout is one JSON object, medians over the repeats:

  time_vs_gunzip            time of the preparation / time of gzip, at the first scale
  peak_rss_mb               of all its processes together, at the first scale
  rows_per_s                raw event rows, at the first scale
  ecg_per_s_per_core        recordings (12 x 5,000 samples) per second of CPU time
  wfdb_ecg_per_s_per_core   the same for `wfdb.rdrecord`, which only reads
  growth                    all of that for every scale, with times in seconds
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import wfdb

from benchmarks.large_hospital import write_large_hospital
from data_pipeline import processors
from data_pipeline.ecg import conditioning, reading
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.format import records
from data_pipeline.sources.simulated import write_hospital

_PROJECT = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.02
_RECORDINGS_PER_EXAMPLE = 4


def main() -> None:
  """Prepares hospitals of all scales repeatedly and prints medians as JSON."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--raw', type=Path, required=True, help='folder of the raw files')
  parser.add_argument('--chartevents_rows', type=int, default=20_000_000)
  parser.add_argument('--labevents_rows', type=int, default=8_000_000)
  parser.add_argument('--scales', default='1', help='for example 1,2,4')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--memory_limit', help='of prepare; by default its own default')
  parser.add_argument('--workers', type=int, default=processors.available())
  parser.add_argument('--ecg_patients', type=int, default=200)
  options = parser.parse_args()

  growth = []
  for scale in [float(text) for text in options.scales.split(',')]:
    chart = round(options.chartevents_rows * scale)
    labs = round(options.labevents_rows * scale)
    hospital = options.raw / f'chartevents-{chart}-labevents-{labs}'
    write_large_hospital(hospital, chartevents_rows=chart, labevents_rows=labs)
    command = [
      '--source=mimic_iv', f'--mimic_iv={hospital}', '--task=mortality',
      f'--workers={options.workers}',
    ]  # fmt: skip
    if options.memory_limit:
      command.append(f'--memory_limit={options.memory_limit}')
    growth.append(
      {'scale': scale} | _measure(hospital, chart + labs, command, options.repeats)
    )
    _say(growth[-1])
  ecg = _measure_ecg(options.raw / 'ecg', options.ecg_patients, options.repeats)
  first = {
    name: growth[0][name] for name in ('time_vs_gunzip', 'peak_rss_mb', 'rows_per_s')
  }
  print(json.dumps(first | ecg | {'growth': growth}))


def _measure(
  hospital: Path, rows: int, command: Sequence[str], repeats: int
) -> dict[str, float]:
  tables = ['icu/chartevents.csv.gz', 'hosp/labevents.csv.gz']
  gunzip = ['gzip', '-dc', *(str(hospital / table) for table in tables)]
  results = []
  for _ in range(repeats):
    gunzip_seconds, gunzip_cpu, _ = _run(gunzip)
    with tempfile.TemporaryDirectory() as folder:
      prepare = [sys.executable, '-m', 'data_pipeline.prepare', f'--out={folder}/out']
      seconds, cpu, peak = _run([*prepare, *command])
    results.append(
      {
        'gunzip_s': gunzip_seconds,
        'path_s': seconds,
        'time_vs_gunzip': seconds / gunzip_seconds,
        'gunzip_cpu_s': gunzip_cpu,
        'path_cpu_s': cpu,
        'peak_rss_mb': peak / 1e6,
        'rows_per_s': rows / seconds,
      }
    )
    _say(results[-1])
  median = {
    name: round(statistics.median(result[name] for result in results), 2)
    for name in results[0]
  }
  return {'rows': rows, **median}


def _run(command: Sequence[str]) -> tuple[float, float, int]:
  """Seconds, CPU seconds, and the peak resident bytes of a command and its children."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  start = time.perf_counter()
  process = subprocess.Popen(
    command, cwd=_PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
  )
  peak, done = 0, threading.Event()

  def poll() -> None:
    nonlocal peak
    while not done.wait(_POLL_SECONDS):
      peak = max(peak, _resident_bytes(process.pid))

  poller = threading.Thread(target=poll)
  poller.start()
  _, errors = process.communicate()
  seconds = time.perf_counter() - start
  done.set()
  poller.join()
  if process.returncode:
    raise SystemExit(f'{" ".join(command)}\n{errors.decode()}')
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return seconds, cpu, peak


def _resident_bytes(process: int) -> int:
  """Resident memory of a process and its descendants; shared memory counts repeatedly."""
  folder = Path(f'/proc/{process}')
  try:
    pages = int((folder / 'statm').read_text().split()[1])
    children = [
      int(child)
      for file in folder.glob('task/*/children')
      for child in file.read_text().split()
    ]
  except (FileNotFoundError, ProcessLookupError):  # it has just ended
    return 0
  return pages * resource.getpagesize() + sum(map(_resident_bytes, children))


def _measure_ecg(folder: Path, patients: int, repeats: int) -> dict[str, float]:
  write_hospital(folder, patients=patients, seed=0, density=0.1)
  root = folder / 'mimic-iv-ecg'
  with (root / 'record_list.csv').open(newline='') as file:
    paths = [str(root / row['path']) for row in csv.DictReader(file)]
  paths = [path for path in paths if _is_usable(path)]
  parts = [
    paths[i : i + _RECORDINGS_PER_EXAMPLE]
    for i in range(0, len(paths), _RECORDINGS_PER_EXAMPLE)
  ]

  def pack() -> None:
    for part in parts:
      signal = np.stack([conditioning.load(RawRecording(path))[0] for path in part])
      records.frame(signal.tobytes())

  def read_only() -> None:
    for path in paths:
      wfdb.rdrecord(path)

  ours, theirs = [], []
  for _ in range(repeats):
    ours.append(len(paths) / _cpu_seconds(pack))
    theirs.append(len(paths) / _cpu_seconds(read_only))
    _say({'ecg_per_s_per_core': ours[-1], 'wfdb_ecg_per_s_per_core': theirs[-1]})
  return {
    'ecg_per_s_per_core': round(statistics.median(ours), 1),
    'wfdb_ecg_per_s_per_core': round(statistics.median(theirs), 1),
    'ecg_recordings': len(paths),
  }


def _is_usable(path: str) -> bool:
  """Whether a recording is usable; some are damaged on purpose. Fills the file cache."""
  try:
    conditioning.load(RawRecording(path))
  except reading.EcgError:
    return False
  return True


def _cpu_seconds(work: Callable[[], None]) -> float:
  start = time.process_time()
  work()
  return time.process_time() - start


def _say(result: dict[str, float]) -> None:
  values = ', '.join(f'{name} {value:,.2f}' for name, value in result.items())
  print(values, file=sys.stderr, flush=True)


if __name__ == '__main__':
  main()
