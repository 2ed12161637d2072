"""What one check of the audit found."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Check:
  """One check.

  Attributes:
    name: what was checked, with the fold where it is one fold's.
    passed: whether it holds. What could not be tested has not passed.
    figure: what was measured; None where nothing could be.
    detail: the figure in plain words, and what it means.
  """

  name: str
  passed: bool
  figure: float | None
  detail: str

  def __str__(self) -> str:
    figure = '-' if self.figure is None else f'{self.figure:.6g}'
    return f'{"PASS" if self.passed else "FAIL"}  {self.name} [{figure}]: {self.detail}'
