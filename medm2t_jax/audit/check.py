"""The result of one check of the audit."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Check:
  """The result of one check.

  Attributes:
    name: what was checked, including the fold if it concerns one fold.
    passed: whether it holds. A check that could not run has not passed.
    measured: the number that was measured; None if nothing could be measured.
    detail: `measured` in plain words, and what it means.
  """

  name: str
  passed: bool
  measured: float | None
  detail: str

  def __str__(self) -> str:
    measured = '-' if self.measured is None else f'{self.measured:.6g}'
    return f'{"PASS" if self.passed else "FAIL"}  {self.name} [{measured}]: {self.detail}'
