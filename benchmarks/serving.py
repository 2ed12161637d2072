"""Measures the service: latency, throughput, start-up time, memory.

  ./run.sh exec python -m benchmarks.serving --model=BUNDLE [--requests=1000]
      [--clients=32] [--memory_requests=20000] [--rows=1,4,16]

Starts `python -m medm2t_jax.serve` on this machine and sends requests over loopback. A
request is one patient with 300 events of the model's own variables in its observation
window; if the model reads ECGs, a second kind of request has one of ten seconds at 500 Hz,
as a WFDB pair. The clients are one process that shares the cores with the service: bodies
are made before, and only the status of answers is parsed.

The last line on stdout is one JSON object: `start_s`, from the command to the first answer;
with one client `p50_ms` and `p99_ms`; with many `per_second`; the same for patients with an
ECG as `..._ecg`; `errors`, answers other than 200; `client_share`, the clients' share of
the processor time; `memory_mb`, resident, after the first tenth and after all of
`--memory_requests`. `--model` may be any bundle with MIMIC-IV's variables.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from data_pipeline import processors
from data_pipeline.format.modalities.waveform import ECG_LEADS

_MODEL = flags.DEFINE_string('model', None, 'A bundle.', required=True)
_REQUESTS = flags.DEFINE_integer('requests', 1000, 'Of every measurement.')
_CLIENTS = flags.DEFINE_integer('clients', 32, 'Number of concurrent clients.')
_MEMORY = flags.DEFINE_integer(
  'memory_requests', 20_000, 'Requests while memory is measured; 0: none.'
)
_ROWS = flags.DEFINE_string('rows', '1,4,16', 'Rows of the compiled programs.')

_EVENTS = 300
_KINDS = 32  # different patients
_START_SECONDS = 300
_NOW = '2150-03-02T10:00:00Z'


def main(_: list[str]) -> None:
  """Starts the service, sends requests; prints latency, throughput and memory as JSON."""
  port = _free_port()
  began = time.perf_counter()
  service = subprocess.Popen(
    [
      sys.executable, '-m', 'medm2t_jax.serve', f'--model={_MODEL.value}',
      f'--port={port}', f'--batch_rows={_ROWS.value}',
    ],
  )  # fmt: skip
  try:
    told = _model_when_ready(service, port, began)
    plain = _bodies(told, ecg=False)
    found: dict[str, Any] = {'model': told['task'], 'cores': processors.available()}
    asyncio.run(_asked(port, plain[:1], requests=1, clients=1))
    found['start_s'] = round(time.perf_counter() - began, 1)
    errors = 0
    kinds = {'': plain}
    if 'ecg' in told['modalities']:
      kinds['_ecg'] = _bodies(told, ecg=True)
    for suffix, bodies in kinds.items():
      asyncio.run(_asked(port, bodies, requests=_KINDS, clients=1))  # warm
      one = asyncio.run(_asked(port, bodies, requests=_REQUESTS.value, clients=1))
      found[f'p50_ms{suffix}'], found[f'p99_ms{suffix}'] = (
        round(1000 * float(np.quantile(one.seconds, q)), 1) for q in (0.5, 0.99)
      )
      used, own = _cpu_seconds(service.pid), _own_seconds()
      many = asyncio.run(
        _asked(port, bodies, requests=_REQUESTS.value, clients=_CLIENTS.value)
      )
      own = _own_seconds() - own
      used = _cpu_seconds(service.pid) - used
      found[f'per_second{suffix}'] = round(_REQUESTS.value / many.whole, 1)
      found[f'client_share{suffix}'] = round(own / (own + used), 2)
      errors += one.errors + many.errors
    if _MEMORY.value:
      part = _MEMORY.value // 10
      many = asyncio.run(_asked(port, plain, requests=part, clients=_CLIENTS.value))
      memory = [_resident_mb(service.pid)]
      rest = _MEMORY.value - part
      more = asyncio.run(_asked(port, plain, requests=rest, clients=_CLIENTS.value))
      memory.append(_resident_mb(service.pid))
      found['memory_mb'] = memory
      errors += many.errors + more.errors
    found['errors'] = errors
  finally:
    service.terminate()
    service.wait()
  print(json.dumps(found))


class _Asked:
  """The answers to requests.

  Attributes:
    seconds: of each request.
    whole: seconds of all together.
    errors: number of answers other than 200.
  """

  def __init__(self, seconds: list[float], whole: float, errors: int):
    self.seconds, self.whole, self.errors = seconds, whole, errors


async def _asked(port: int, bodies: list[bytes], *, requests: int, clients: int) -> _Asked:
  """Sends requests over connections that stay open."""
  numbers = iter(range(requests))
  seconds: list[float] = []
  errors = 0

  async def client() -> None:
    nonlocal errors
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    for number in numbers:
      began = time.perf_counter()
      writer.write(bodies[number % len(bodies)])
      await writer.drain()
      head = await reader.readuntil(b'\r\n\r\n')
      length = int(head.lower().partition(b'content-length:')[2].split(b'\r\n')[0])
      await reader.readexactly(length)
      seconds.append(time.perf_counter() - began)
      errors += not head.startswith(b'HTTP/1.1 200')
    writer.close()

  began = time.perf_counter()
  await asyncio.gather(*(client() for _ in range(clients)))
  return _Asked(seconds, time.perf_counter() - began, errors)


def _bodies(told: Any, *, ecg: bool) -> list[bytes]:
  """Whole HTTP requests of different patients, with the variables listed by GET /model."""
  rng = np.random.default_rng(0)
  variables = [
    each
    for name, of in told['modalities'].items()
    for each in of
    if each['request_codes'] and name not in ('static', 'ecg')
  ]
  hours = told['observation_hours'] or 24
  made = []
  for number in range(_KINDS):
    events = []
    for each in rng.choice(variables, _EVENTS):
      minutes = int(rng.integers(0, 60 * hours))
      day, rest = divmod(60 * 34 - minutes, 24 * 60)
      event = {
        'code': each['request_codes'][-1],
        'time': f'2150-03-{1 + day:02d}T{rest // 60:02d}:{rest % 60:02d}:00Z',
      }
      if each['categories']:
        event['text_value'] = str(rng.choice(each['categories']))
      else:
        low = 0 if each['low'] is None else each['low']
        high = 100 if each['high'] is None else each['high']
        event['numeric_value'] = round(low + (high - low) * rng.uniform(0.1, 0.6), 1)
      events.append(event)
    patient = {'id': f'p{number}', 'prediction_time': _NOW, 'events': events}
    if ecg:
      patient['ecgs'] = [_recording(rng)]
    body = json.dumps({'patients': [patient]}).encode()
    head = (
      'POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
      f'Content-Length: {len(body)}\r\n\r\n'
    )
    made.append(head.encode() + body)
  return made


def _recording(rng: np.random.Generator) -> dict[str, Any]:
  """Ten seconds of twelve leads at 500 Hz, as a WFDB pair."""
  phase = 2 * np.pi * rng.uniform(1, 8, 12) * np.arange(5000)[:, None] / 500
  signal = (200 * np.sin(phase)).round().astype('<i2')
  lines = ['r 12 500 5000']
  lines += [f'r.dat 16 200.0(0)/mV 16 0 {signal[0, k]} 0 0 {lead}'
            for k, lead in enumerate(ECG_LEADS)]  # fmt: skip
  encoded = lambda content: base64.b64encode(content).decode()
  return {
    'time': _NOW,
    'hea': encoded(('\n'.join(lines) + '\n').encode()),
    'dat': encoded(signal.tobytes()),
  }


def _model_when_ready(service: subprocess.Popen, port: int, began: float) -> Any:
  """The answer of GET /model, as soon as the service is ready."""
  while time.perf_counter() - began < _START_SECONDS:
    if service.poll() is not None:
      sys.exit(f'error: the service ended with {service.returncode}')
    try:
      with urllib.request.urlopen(f'http://127.0.0.1:{port}/model') as answer:
        return json.load(answer)
    except (ConnectionError, urllib.error.URLError):
      time.sleep(0.05)
  sys.exit(f'error: no answer in {_START_SECONDS} s')


def _free_port() -> int:
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


def _cpu_seconds(pid: int) -> float:
  fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _own_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def _resident_mb(pid: int) -> int:
  pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') >> 20


if __name__ == '__main__':
  app.run(main)
