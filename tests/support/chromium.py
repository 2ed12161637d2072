"""A real browser for pages, headless."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


def chromium(folder: Path, *arguments: object) -> str:
  """Runs it headless, without a network, with a profile of its own: its output."""
  command = [*_command(folder), '--virtual-time-budget=10000', *map(str, arguments)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout


def _command(folder: Path) -> list[str]:
  return [
    *(str(CHROMIUM), '--headless', '--no-sandbox', '--disable-gpu'),
    *('--disable-dev-shm-usage', '--proxy-server=127.0.0.1:9'),
    f'--user-data-dir={folder / "profile"}',
  ]


class Tab:
  """A page that is asked and typed at, through the DevTools protocol over two pipes."""

  def __init__(self, folder: Path, url: str, *, width: int, height: int = 800):
    """Opens a page of this width, which a window could not have on a desktop."""
    read, self._write = os.pipe()
    self._read, write = os.pipe()
    command = shlex.join(
      [*_command(folder), '--remote-debugging-pipe', '--no-startup-window']
    )
    # The numbers that the browser reads and writes.
    self._browser = subprocess.Popen(
      ['bash', '-c', f'exec {command} 3<&{read} 4>&{write}'],
      pass_fds=(read, write),
      stderr=subprocess.DEVNULL,
    )
    os.close(read)
    os.close(write)
    self._number, self._session, self._rest = 0, None, b''
    target = self.send('Target.createTarget', url='about:blank')['targetId']
    attached = self.send('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    size = {'width': width, 'height': height, 'deviceScaleFactor': 1}
    self.send('Emulation.setDeviceMetricsOverride', mobile=width < 600, **size)
    self.send('Page.navigate', url=url)
    self.ask("new Promise((done) => document.readyState === 'complete' && location.href "
             "!== 'about:blank' ? done() : addEventListener('load', done))")  # fmt: skip

  def __enter__(self) -> Tab:
    return self

  def __exit__(self, *_: object) -> None:
    self._browser.kill()
    self._browser.wait(30)
    os.close(self._write)
    os.close(self._read)

  def send(self, method: str, **params: Any) -> Any:
    """A command of the protocol: its result."""
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._write, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._next()
      if answer.get('id') == self._number:
        assert 'error' not in answer, answer
        return answer['result']

  def ask(self, expression: str) -> Any:
    """The value of JavaScript in the page."""
    found = self.send(
      'Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True
    )
    assert 'exceptionDetails' not in found, found
    return found['result'].get('value')

  def press(self, key: str, code: int) -> None:
    """Presses a key that writes nothing, as ArrowLeft (37)."""
    of = {'key': key, 'code': key, 'windowsVirtualKeyCode': code}
    self.send('Input.dispatchKeyEvent', type='rawKeyDown', **of)
    self.send('Input.dispatchKeyEvent', type='keyUp', **of)

  def _next(self) -> Any:
    while b'\0' not in self._rest:
      ready, _, _ = select.select([self._read], [], [], 60)
      assert ready, 'the browser does not answer'
      more = os.read(self._read, 1 << 16)
      assert more, 'the browser has ended'
      self._rest += more
    message, _, self._rest = self._rest.partition(b'\0')
    return json.loads(message)
