"""Report lines to terms: real wordings, negation, qualifiers."""

from __future__ import annotations

import pytest

from data_pipeline.ecg.report_terms import terms, terms_of


def named(*lines):
  indices, unmatched = terms_of(lines)
  assert unmatched == []
  return {terms()[index] for index in indices}


def test_the_143_terms():
  assert len(terms()) == len(set(terms())) == 143


@pytest.mark.parametrize(
  ('line', 'expected'),
  [
    ('Sinus rhythm', {'Sinus rhythm'}),
    ('Sinus bradycardia', {'ECG: sinus bradycardia'}),
    (
      'Atrial fibrillation with rapid ventricular response',
      {'ECG: atrial fibrillation', 'Atrial fibrillation with rapid ventricular response'},
    ),
    (
      'RBBB with left anterior fascicular block',
      {
        'Right bundle branch block (RBBB) on electrocardiogram',
        'Left anterior fascicular block on electrocardiogram (finding)',
      },
    ),
    ('Incomplete RBBB', {'ECG: Incomplete right bundle branch block'}),
    (
      'Possible inferior infarct - age undetermined',
      {'Inferior infarction by EKG', 'Myocardial infarction'},
    ),
    (
      'Lateral ST-T changes may be due to myocardial ischemia',
      {'ECG ST segment changes', 'EKG myocardial ischemia', 'EKG: lateral ischemia'},
    ),
    ('Poor R wave progression', {'Electrocardiographic R wave abnormal (finding)'}),
    (
      'Low QRS voltages in precordial leads',
      {'Low QRS voltages in the precordial leads'},
    ),
    ('Generalized low QRS voltages', {'Low QRS voltages'}),
    ('PVCs', {'ECG: PVCs - Premature ventricular complexes'}),
    ('with PVC(s)', {'ECG: PVCs - Premature ventricular complexes'}),
    ('Prolonged QT interval', {'Prolonged QT interval'}),
    ('Early repolarization', {'Early repolarization (finding)'}),
    ('Borderline ECG', {'Borderline normal ECG'}),
    ('Abnormal ECG', {'Abnormal ECG'}),
    ('Normal ECG', {'ECG normal'}),
    ('Normal ECG except for rate', {'Borderline normal ECG'}),
    ('Nonspecific T abnormalities', {'T wave changes only (finding)'}),
    (
      'Sinus rhythm with 1st degree A-V block',
      {'Sinus rhythm', 'First degree atrioventricular block (disorder)', 'AV block'},
    ),
    ('- age undetermined', set()),
    ('Electric axis of the heart: left axis deviation', {'Left axis deviation'}),
    ('Electric axis of the heart: normal', set()),
  ],
)
def test_wordings(line, expected):
  assert named(line) == expected


@pytest.mark.parametrize(
  'line',
  [
    'No evidence of infarct',
    'without acute ischemia',
    'No pericarditis',
    'Not paced rhythm',
  ],
)
def test_negated_lines_add_nothing_and_are_understood(line):
  assert named(line) == set()


def test_negation_is_local():
  assert named('Sinus rhythm, no ST elevation') == {'Sinus rhythm'}


def test_lines_are_a_bag_and_unmatched_ones_are_returned():
  lines = ['Sinus rhythm', 'Sinus rhythm', 'Zorblax configuration', '']
  indices, unmatched = terms_of(lines)
  assert [terms()[index] for index in indices] == ['Sinus rhythm']
  assert unmatched == ['Zorblax configuration']


def test_indices_are_sorted():
  indices, _ = terms_of(['Abnormal ECG', 'Sinus rhythm', 'Left axis deviation'])
  assert indices == sorted(indices)
  assert len(indices) == 3
