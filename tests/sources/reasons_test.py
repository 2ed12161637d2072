"""docs/sources.md lists every reason that the sources count, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = 'dropped|repaired|missing|kept|unreadable|ignored'
# What is counted of tables by `raw_tables`, for MEDS the one of ECGs.
OF_TABLES = {'MEDS': {'unreadable: …'}}
SECTIONS = {
  'MIMIC-IV and the simulated hospital': [
    'sources/mimic_iv',
    'sources/common',
    'ecg/sample_recordings.py',
  ],
  'MEDS': ['sources/meds', 'ecg/sample_recordings.py'],
  'PhysioNet 2012': ['sources/physionet2012'],
}


def in_code(places):
  """Reasons in string literals; what is inserted is '…'."""
  found = set()
  for place in places:
    root = ROOT / 'data_pipeline' / place
    for path in [root] if root.is_file() else sorted(root.rglob('*.py')):
      if root.name != 'patients' and 'patients' in path.parts:
        continue  # below
      nodes = [*ast.walk(ast.parse(path.read_text()))]
      joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
      inside = {id(part) for node in joined for part in node.values}
      for node in nodes:
        if isinstance(node, ast.JoinedStr):
          parts = (v.value if isinstance(v, ast.Constant) else '…' for v in node.values)
          found |= reasons(''.join(map(str, parts)))
        elif id(node) in inside:
          continue
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
          found |= reasons(node.value)
        elif isinstance(node, ast.keyword | ast.Assign) and name_of(node) == 'reason':
          found |= reason_texts(node.value)
  return found


def name_of(node):
  return node.arg if isinstance(node, ast.keyword) else ast.unparse(node.targets[0])


def reason_texts(node):
  """What `Result` and `Reading` say, which is put behind 'dropped: '."""
  if isinstance(node, ast.IfExp):
    return reason_texts(node.body) | reason_texts(node.orelse)
  is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
  said = node.value if is_text else ''
  return {f'dropped: {said}'} if said and not reasons(said) else set()


def reasons(text):
  """A reason, or the reasons between quotes of SQL; a prefix alone stands for '…'."""
  if re.fullmatch(rf'({KINDS}): [^\n]+', text):
    return {text}
  found = {match[0] for match in re.finditer(rf"(?<=')({KINDS}): [^']*(?=')", text)}
  return {f'{reason}…' if reason.endswith(': ') else reason for reason in found}


def section(title):
  text = (ROOT / 'docs/sources.md').read_text(encoding='utf-8')
  return re.split(r'\n##+ ', text.split(f'\n### Of {title}\n')[1])[0]


@pytest.mark.parametrize('title', SECTIONS)
def test_reasons_of_a_source(title):
  documented = set(re.findall(rf'`((?:{KINDS}): [^`]+)`', section(title)))
  # Where a reason is put together, its parts are there too.
  code = in_code(SECTIONS[title]) - {'dropped: …', 'dropped: unreadable …'}
  assert documented == code | OF_TABLES.get(title, set())


def test_reasons_of_requests():
  text = (ROOT / 'docs/serving.md').read_text(encoding='utf-8')
  documented = set(re.findall(rf'`((?:{KINDS}): [^`]+)`', text))
  assert documented == in_code(['sources/meds/patients']) - {'dropped: …'}


def test_reasons_of_recordings():
  code = set()
  for name in ('reading', 'conditioning', 'arrays', 'dicom'):
    text = (ROOT / f'data_pipeline/ecg/{name}.py').read_text()
    code |= set(re.findall(r"EcgError\(\s*'(\w+)'", text))
  rows = [line for line in section('ECG recordings').splitlines() if line.startswith('| `')]
  documented = {name for row in rows for name in re.findall(r'`(\w+)`', row.split('|')[1])}
  assert documented == code
