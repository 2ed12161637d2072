"""As many workers as the process may use, not as the machine has."""

from __future__ import annotations

import os

import pytest

from data_pipeline.processors import available


@pytest.fixture
def four(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 2, 5, 7})


@pytest.mark.parametrize(
  ('files', 'expected'),
  [
    ({}, 4),
    ({'cpu.max': 'max 100000\n'}, 4),
    ({'cpu.max': '200000 100000\n'}, 2),
    ({'cpu.max': '150000 100000\n'}, 2),
    ({'cpu.max': '10000 100000\n'}, 1),
    ({'cpu.max': '800000 100000\n'}, 4),
    ({'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 4),
    ({'cpu/cpu.cfs_quota_us': '300000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 3),
  ],
)
def test_affinity_and_the_limit_of_the_container(four, tmp_path, files, expected):
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  assert available(tmp_path) == expected


def test_this_process():
  assert 1 <= available() <= len(os.sched_getaffinity(0))
