"""The wheel: everything that the packages need, and commands that run from any folder."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs import rooms

ROOT = Path(__file__).parents[1]
PACKAGES = ('configs', 'data_pipeline', 'medm2t_jax')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """A folder in which the wheel is installed."""
  source, site = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('site')
  for name in PACKAGES:
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / name, source / name, ignore=ignored)
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  command = [
    sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
    f'--wheel-dir={site}', str(source),
  ]  # fmt: skip
  subprocess.run(command, check=True, capture_output=True)
  [wheel] = site.glob('*.whl')
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(site)
  return site


def test_everything_is_in_it(site):
  files = lambda root: {
    path.relative_to(root)
    for name in PACKAGES
    for path in (root / name).rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }
  assert files(site) == files(ROOT)


def test_shipped_experiments_from_any_folder(site, tmp_path):
  done = subprocess.run(
    [
      sys.executable, '-m', 'medm2t_jax.main', '--config=configs/first.py',
      '--config', 'configs/cvd.py:smoke', '--config.sed=1',
    ],
    cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(site)}, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  # The file was found and read: only its option is wrong.
  assert done.stderr.splitlines()[-1] == (
    'error: --config: no option \'sed\'. Did you mean "seed" instead of "sed"? (see --help)'
  )


def test_a_file_of_ones_own_comes_first(site, tmp_path):
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs/cvd.py').write_text('1 / 0\n')
  done = subprocess.run(
    [sys.executable, '-m', 'medm2t_jax.main', '--config=configs/cvd.py'],
    cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(site)}, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  assert 'division by zero' in done.stderr.splitlines()[-1]


def instructions():
  """(keyword, rest) of every instruction of the Dockerfile."""
  text = (ROOT / 'Dockerfile').read_text(encoding='utf-8').replace('\\\n', ' ')
  lines = [line for line in text.splitlines() if line and not line.startswith('#')]
  return [(keyword, rest) for keyword, _, rest in (line.partition(' ') for line in lines)]


SERVING = """
import json
import sys
from medm2t_jax.serving import application
from data_pipeline.sources.meds import mapping
print(json.dumps([name for name in sys.modules if name.startswith(('data_', 'medm2t_'))]))
"""


def test_the_service_imports_what_its_extra_installs():
  done = subprocess.run(
    [sys.executable, '-c', SERVING], cwd=ROOT, check=True, capture_output=True, text=True
  )
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  wanted = config['options']['install_requires'].splitlines()
  waiting = [*wanted, *config['options.extras_require']['serve'].splitlines()]
  installed: set[str] = set()
  while waiting:
    line = waiting.pop()
    if not line or 'extra ==' in line:
      continue
    name = canonicalize_name(Requirement(line).name)
    if name not in installed:
      try:
        waiting += importlib.metadata.requires(name) or []
      except importlib.metadata.PackageNotFoundError:
        continue  # of another platform
      installed.add(name)
  loaded = set(json.loads(done.stdout.splitlines()[-1]))
  distributions = importlib.metadata.packages_distributions()
  imported = {
    canonicalize_name(distribution)
    for path in rooms.files()
    if rooms.module_of(path) in loaded
    for name in rooms.imports(path)  # those inside functions, too
    for distribution in distributions.get(name.partition('.')[0], ())
  }
  assert {'fastapi', 'jax', 'jsonschema'} <= imported
  # What reads DICOM files and MEDS data sets asks for its extra by name.
  of_files = {'pydicom', 'meds', 'flexible-schema'}
  assert imported - installed - of_files == {'medm2t-jax'}


def test_the_image_has_what_the_wheel_needs():
  copied = [rest.split() for keyword, rest in instructions() if keyword == 'COPY']
  sources = [name for words in copied if '--from=' not in words[0] for name in words[:-1]]
  kept = {
    line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines() if line[0] == '!'
  }
  assert {*sources} == kept and {*PACKAGES} < kept
  assert all((ROOT / name).exists() for name in sources)
  stages = [rest for keyword, rest in instructions() if keyword == 'FROM']
  assert len(stages) == 2 and stages[0].endswith(' AS build')
  # The extra that is installed is one of the package.
  [installed] = [rest for _, rest in instructions() if 'pip install' in rest]
  extra = installed.rpartition('[')[2].partition(']')[0]
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  assert extra in setup['options.extras_require']


def test_the_image_starts_the_service_as_nobody_special(site, tmp_path):
  last = dict(instructions())
  assert last['USER'] not in ('root', '0')
  python, *arguments = json.loads(last['ENTRYPOINT'])
  done = subprocess.run(
    [sys.executable, *arguments, f'--model={tmp_path}', f'--port={last["EXPOSE"]}'],
    cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(site)}, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  assert done.stderr.splitlines()[-1].startswith(f'error: {tmp_path} is not a bundle')
  check = json.loads(last['HEALTHCHECK'].partition('CMD ')[2])
  assert check[0] == python and f':{last["EXPOSE"]}/health' in check[-1]
  compile(check[-1], 'HEALTHCHECK', 'exec')
