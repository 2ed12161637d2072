"""One change of an experiment, to measure what it is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Ablation:
  """One change of an experiment.

  Attributes:
    name: of its folder.
    group: its heading in the table.
    question: that it answers.
    changes: path of a config value -> its new value.
    reason: why it does not apply to the data set or the experiment; '' if it applies.
  """

  name: str
  group: str
  question: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  reason: str = ''
