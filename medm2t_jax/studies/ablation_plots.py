"""Draws the differences of ablations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from medm2t_jax.report import pictures
from medm2t_jax.report.blocks import Figure, Table


def differences(
  groups: Mapping[str, Mapping[str, Mapping[str, Any]]], name: str, better: str
) -> Figure:
  """Differences to one model with their intervals, one row each.

  Args:
    groups: heading -> name -> estimate of the difference.
    name: of the metric, with its unit.
    better: the side of better models: 'left' or 'right'.
  """
  rows = [
    (color, label, each)
    for color, estimates in zip(pictures.cycle(groups), groups.values(), strict=True)
    for label, each in estimates.items()
  ]

  def draw(axes: Axes) -> Table:
    axes.axvline(0, color='#9aa5b1', linewidth=1, linestyle=(0, (4, 3)))
    for place, (color, _, each) in enumerate(rows):
      if each['low'] is not None:
        axes.plot([each['low'], each['high']], [place, place], color=color)
      if each['value'] is not None:
        axes.plot([each['value']], [place], color=color, marker='o', markersize=5)
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f'{name}: ablation − full model')
    written = [
      (label, *(pictures.written(each[key]) for key in ('value', 'low', 'high')))
      for _, label, each in rows
    ]
    return Table(('', f'Difference in {name}', 'low', 'high'), written)

  names = ', '.join(label for _, label, _ in rows)
  return pictures.figure(
    draw,
    f'Difference in {name} to the full model: {names}',
    f'Dashed: the full model. To the {better}: the ablation is better.',
    inches=(4.6, 1.1 + 0.26 * len(rows)),
  )
