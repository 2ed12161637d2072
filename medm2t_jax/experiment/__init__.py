"""The type of an experiment's configuration."""

from __future__ import annotations

from typing import Any, TypeAlias

# An ml_collections.ConfigDict of `configs/`. Its fields are checked when it is built
# and locked; type checkers know nothing of them, so to them it is Any.
Experiment: TypeAlias = Any
