"""The export: a folder that JAX and NumPy alone can run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from jax import export

from data_pipeline.format.schema import DataError
from medm2t_jax.inference import exporting
from tests.inference.conftest import BATCHING
from tests.inference.program_test import batch_of
from tests.support import small_bundle, staging_fixture

DOCS = Path(__file__).parents[2] / 'docs' / 'trained_model.md'


@pytest.fixture(scope='module')
def untrained():
  """Of one member: what several say together is in program_test.py."""
  schema = staging_fixture.SCHEMA.only(('static', 'labs', 'ecg'))
  return small_bundle.model(of=schema, batching=BATCHING, blended=True)


@pytest.fixture(scope='module')
def exported(untrained, tmp_path_factory):
  out = tmp_path_factory.mktemp('export') / 'out'
  exporting.export_model(untrained, out)
  return out


@pytest.fixture(scope='module')
def manifest(exported):
  return json.loads((exported / 'manifest.json').read_text())


def test_a_process_with_jax_and_numpy_predicts_what_the_bundle_predicts(
  exported, untrained, dataset, tmp_path
):
  """The loader is that of the documentation, as it stands there."""
  batch, expected = batch_of(untrained, dataset)
  one = jax.tree.map(lambda array: array[0], dict(batch))
  # Real rows of the first bucket, without padding rows: other shapes than the example's.
  rows = int((one['row'] >= 0).sum())
  packed = int(max(one['ecg']['mask'].sum(), 1))
  names = json.loads((exported / 'manifest.json').read_text())['programs'][0]['inputs']
  flat = traverse_util.flatten_dict(one, sep='/')
  sizes = {'b': rows, 'm': packed}
  request = {each['name']: flat[each['name']][: sizes[each['shape'][0]]] for each in names}
  np.savez(tmp_path / 'request.npz', allow_pickle=False, **request)
  loader = re.search(r'```python\n(import json.*?)```', DOCS.read_text(), re.DOTALL)
  assert loader is not None
  script = loader.group(1).replace("'EXPORT'", repr(str(exported)))
  script += (
    '\nimport sys\n'
    f'found = predict(dict(np.load({str(tmp_path / "request.npz")!r})))\n'
    f'np.save({str(tmp_path / "found.npy")!r}, found)\n'
    "assert not {'medm2t_jax', 'data_pipeline', 'flax', 'tensorflow'} & set(sys.modules)\n"
  )
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', script],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  found = np.load(tmp_path / 'found.npy')
  assert rows > 2 and found.shape == (rows, 2)
  np.testing.assert_allclose(found, expected[0][:rows], atol=1e-5)


def test_the_manifest_says_what_goes_in_and_what_comes_out(exported, manifest, untrained):
  first, second = manifest['programs']
  inputs = {each['name']: each for each in first['inputs']}
  assert inputs['labs/item']['shape'] == ['b', 16]
  assert {each['name']: each for each in second['inputs']}['labs/item']['shape'][1] == 32
  assert inputs['ecg/signal']['shape'][0] == inputs['ecg/owner']['shape'][0] == 'm'
  assert inputs['ecg/signal']['dtype'] == 'int16'
  assert not {'label', 'weight'} & inputs.keys() and 'row' in inputs
  assert all(each['meaning'] for each in inputs.values())
  (labs,) = [each for each in manifest['modalities'] if each['name'] == 'labs']
  assert labs['items'][2]['itemid'] == '3' and labs['items'][2]['unit'] == 'mmol/L'
  assert labs['items'][1]['categories'] == ['clear', 'red', 'dark']
  assert manifest['target']['classes'] == ['alive', 'dead']
  assert manifest['outputs'][0]['shape'] == ['b', 2]
  assert set(manifest['platforms']) == {'cpu', 'cuda', 'tpu'}
  assert jax.__version__ == manifest['versions']['jax']
  assert manifest['versions']['jaxlib'] in manifest['readable']
  found = {path.name for path in exported.iterdir()} - {'manifest.json'}
  assert found == manifest['files'].keys()
  for name, digest in manifest['files'].items():
    assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
  answer = np.load(exported / manifest['example']['answer'])
  np.testing.assert_allclose(answer, untrained.answer, atol=1e-5)


def test_every_program_is_of_any_number_of_rows(exported, manifest):
  for each in manifest['programs']:
    program = export.deserialize(bytearray((exported / each['file']).read_bytes()))
    assert set(program.platforms) == set(exporting.PLATFORMS)
    assert {str(shape[0]) for shape in (a.shape for a in program.in_avals)} == {'b', 'm'}


def test_what_is_no_export_is_not_replaced(untrained, tmp_path):
  other = tmp_path / 'other'
  other.mkdir()
  (other / 'manifest.json').write_text('{}')
  with pytest.raises(DataError, match='other holds files that are not an export'):
    exporting.export_model(untrained, other)
  assert [path.name for path in other.iterdir()] == ['manifest.json']


def test_a_wrong_answer_is_not_exported(untrained, tmp_path, monkeypatch):
  wrong = dataclasses.replace(untrained, answer=untrained.answer + 1e-3)
  answer = untrained.answer.astype(np.float32)
  fake = type('Exported', (), {'call': staticmethod(lambda flat: answer)})
  monkeypatch.setattr(exporting, 'exported', lambda *_, **__: fake)
  with pytest.raises(DataError, match='predicts the example differently from the bundle'):
    exporting.export_model(wrong, tmp_path / 'out')
  assert not list(tmp_path.iterdir())
