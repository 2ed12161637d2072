"""The command in a process of its own, and what it says of wrong flags."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.serving.service_options import read_token
from tests.serving.http_test import event, patient
from tests.support import small_bundle
from tests.support.xla_flags import xla_flags

SECONDS = 240


def free_port():
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    return one.getsockname()[1]


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  """Of a model that compiles fast: the process is what is tested."""
  schema = small_bundle.schema().only(('static', 'labs'))
  model = small_bundle.model(of=schema, trunk='ensemble', ensemble=2, deep='none')
  folder = tmp_path_factory.mktemp('bundle') / 'model'
  model.save(folder)
  return folder


@contextlib.contextmanager
def running(bundle, log, *flags):
  """(process, URL) of a service that answers."""
  port = free_port()
  command = [sys.executable, '-m', 'medm2t_jax.serve', f'--model={bundle}']
  with log.open('w') as file:
    process = subprocess.Popen(
      [*command, f'--port={port}', '--batch_rows=2', *flags],
      env={**os.environ, 'XLA_FLAGS': xla_flags(1)},
      stdout=file,
      stderr=file,
    )
  try:
    url, end = f'http://127.0.0.1:{port}', time.monotonic() + SECONDS
    while True:
      assert process.poll() is None and time.monotonic() < end, log.read_text()
      with contextlib.suppress(httpx2.TransportError):
        if httpx2.get(f'{url}/health').status_code == 200:
          break
      time.sleep(0.5)
    yield process, url
  finally:
    if process.poll() is None:
      process.kill()
    process.wait()


def asked(url):
  answer = httpx2.post(
    f'{url}/predict',
    json={'patients': [patient(events=[event(numeric_value=86.4209)])]},
    timeout=SECONDS,
  )
  assert answer.status_code == 200, answer.text
  return answer.json()['patients'][0]['probabilities']


def until_refused(url, expected, answered):
  """Asks again and again; every answer is the expected one, until there is none."""
  while True:
    try:
      found = asked(url)
    except httpx2.TransportError:
      return
    assert found == pytest.approx(expected, abs=1e-6)
    answered.release()


def test_killed_under_load_it_answers_rightly_or_not_at_all_and_comes_back(
  bundle, tmp_path
):
  log = tmp_path / 'log'
  answered = threading.Semaphore(0)
  with (
    running(bundle, log) as (process, url),
    concurrent.futures.ThreadPoolExecutor(4) as pool,
  ):
    first = asked(url)
    clients = [pool.submit(until_refused, url, first, answered) for _ in range(4)]
    for _ in range(12):
      assert answered.acquire(timeout=SECONDS)
    process.kill()
    process.wait()
    for each in clients:
      each.result(SECONDS)
  with running(bundle, log) as (process, url):
    assert asked(url) == first
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) in (0, -signal.SIGTERM)
  text = log.read_text()
  assert '86.42' not in text and 'Traceback' not in text
  # Our lines alone: no access log.
  assert all('/predict' not in line for line in text.splitlines())


def test_a_token_is_long_and_in_a_file(tmp_path):
  path = tmp_path / 'token'
  for text in ('', 'short', 'with blanks in between', 'ümlaut' * 5):
    path.write_text(text)
    with pytest.raises(DataError, match='--token_file='):
      read_token(str(path))
  with pytest.raises(DataError, match='FileNotFoundError'):
    read_token(str(tmp_path / 'nothing'))
  path.write_text('0123456789abcdef\n')
  assert read_token(str(path)) == '0123456789abcdef'
  assert read_token(None) == ''
