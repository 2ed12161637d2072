"""The charts of the report.

Direct labels or a legend, units on every axis. Curves are thinned to what the eye can see,
so that a page stays small for any number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medm2t_jax.report.blocks import Figure, Table
from medm2t_jax.report.pictures import COLORS, columns_table, cycle, figure, written
from medm2t_jax.report.text import in_brackets

_MOST_POINTS = 400


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
  """ROC curves: name -> (false positive rate, sensitivity), each (t) from 0 to 1."""

  def draw(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color='#9aa5b1', linewidth=1, linestyle=(0, (4, 3)))
    for color, (name, (x, y)) in zip(cycle(curves), curves.items(), strict=True):
      axes.plot(*_thin(np.append(0, x), np.append(0, y)), color=color, label=name)
    _unit_square(axes, 'False positive rate (1 − specificity)', 'Sensitivity')
    axes.legend(loc='lower right')

  names = ', '.join(curves)
  return figure(draw, f'ROC curve: {names}', 'Dashed: a model without any skill.')


def precision_recall(
  curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]],
) -> Figure:
  """Precision-recall curves: name -> (recall (t), precision (t), prevalence)."""

  def draw(axes: Axes) -> None:
    for color, (name, (x, y, share)) in zip(cycle(curves), curves.items(), strict=True):
      x, y = np.append(0, x), np.append(1, y)
      axes.plot(*_thin(x, y), color=color, label=name, drawstyle='steps-pre')
      axes.axhline(share, color=color, linewidth=1, linestyle=(0, (4, 3)))
    _unit_square(axes, 'Recall (sensitivity)', 'Precision (PPV)')
    axes.legend(loc='upper right')

  names = ', '.join(curves)
  return figure(
    draw, f'Precision-recall curve: {names}', 'Dashed: prevalence, a model without skill.'
  )


def reliability(curves: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> Figure:
  """Reliability of class `name`: curve label -> bins {'predicted', 'observed', 'n'}."""

  def draw(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color='#9aa5b1', linewidth=1, linestyle=(0, (4, 3)))
    top = 0.0
    styles = zip(cycle(curves), 'os^v', curves.items(), strict=False)
    for color, marker, (label, bins) in styles:
      x = [each['predicted'] for each in bins]
      y = [each['observed'] for each in bins]
      top = max(top, *x, *y)
      axes.plot(x, y, color=color, marker=marker, markersize=5, label=label)
    limit = min(1.0, max(0.1, 1.1 * top))
    axes.set(xlim=(0, limit), ylim=(-0.02 * limit, 1.02 * limit))
    axes.set(xlabel='Predicted probability', ylabel='Observed share')
    axes.legend(loc='upper left')

  caption = f'{name}: mean of each tenth of the predictions. Dashed: perfect.'
  return figure(draw, f'Reliability curve of {name}', caption)


def score_distribution(
  scores: np.ndarray, positive: np.ndarray, weight: np.ndarray, name: str
) -> Figure:
  """Predicted probability (n) of class `name`, with and without it, by weight (n)."""

  def draw(axes: Axes) -> None:
    edges = np.linspace(0, max(0.05, min(1.0, float(scores.max()) * 1.02)), 31).tolist()
    for case, color, label in (
      (~positive, COLORS[0], f'not {name}'),
      (positive, COLORS[1], name),
    ):
      if case.any():
        weights = weight[case] * (100 / weight[case].sum())
        axes.hist(
          scores[case],
          edges,
          weights=weights,
          color=color,
          alpha=0.5,
          label=f'{label} (n = {case.sum():,})',
        )
    axes.set(xlabel=f'Predicted probability of {name}', ylabel='Share of samples (%)')
    axes.legend(loc='upper right')

  caption = f'{name}: how far the predictions with and without it lie apart.'
  return figure(draw, f'Distribution of the predicted probability of {name}', caption)


def decision(curves: Mapping[str, Sequence[float]], prevalence: float, name: str) -> Figure:
  """Decision curve of class `name` from `decisions.decision_curve`."""

  def draw(axes: Axes) -> None:
    x = np.array(curves['threshold'])
    axes.axhline(0, color='#555555', linewidth=1.2, label='nobody treated')
    axes.plot(x, curves['all'], color=COLORS[1], label='everybody treated', linewidth=1.5)
    axes.plot(x, curves['model'], color=COLORS[0], label='by the model')
    top = max(prevalence, 0.02)
    axes.set(ylim=(-0.4 * top, 1.1 * top), xlim=(0, min(1.0, max(0.2, 3 * top))))
    axes.set(xlabel='Threshold probability', ylabel='Net benefit per sample')
    axes.legend(loc='upper right')

  caption = f'{name}: higher is better, at the risk above which one would act.'
  return figure(draw, f'Decision curve of {name}', caption)


def predicted_against_true(true: np.ndarray, predicted: np.ndarray, unit: str) -> Figure:
  """Predicted on true values, (n) each; the axes end at the 99th percentile."""
  both = np.concatenate([true, predicted])

  def draw(axes: Axes) -> Table:
    low, high = np.quantile(both, [0.01, 0.99]).tolist()
    least = min(0.0, low) if low - high < -low else low  # from 0 if that is near
    limit = high + 0.05 * (high - least) if high > least else least + 1.0
    names = (f'True{in_brackets(unit)}', f'Predicted{in_brackets(unit)}')
    if len(true) > 2000:
      drawn = axes.hexbin(
        true,
        predicted,
        gridsize=40,
        extent=(least, limit, least, limit),
        bins='log',
        mincnt=1,
        cmap='Blues',
        linewidths=0,
      )
      centers, counts = np.asarray(drawn.get_offsets()), np.asarray(drawn.get_array())
      numbers = columns_table((*names, 'Samples'), *centers.T, counts)
    else:
      axes.scatter(true, predicted, s=12, color=COLORS[0], alpha=0.45, linewidths=0)
      numbers = columns_table(names, true, predicted)
    axes.plot(
      [least, limit], [least, limit], color='#9aa5b1', linewidth=1, linestyle=(0, (4, 3))
    )
    axes.set(xlim=(least, limit), ylim=(least, limit))
    axes.set(xlabel=names[0], ylabel=names[1])
    return numbers

  caption = 'Dashed: perfect. Values beyond the 99th percentile are not shown.'
  return figure(draw, 'Predicted against true values', caption)


def numeric_reliability(bins: Sequence[Mapping[str, Any]], unit: str) -> Figure:
  """Mean true value in each tenth of the predicted ones."""

  def draw(axes: Axes) -> None:
    x = [each['predicted'] for each in bins]
    y = [each['observed'] for each in bins]
    limits = [min(0.0, *x, *y), 1.1 * max(*x, *y, 0.1)]
    axes.plot(limits, limits, color='#9aa5b1', linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(x, y, color=COLORS[0], marker='o', markersize=5)
    axes.set(xlim=limits, ylim=limits)
    axes.set(
      xlabel=f'Predicted{in_brackets(unit)}', ylabel=f'Mean true value{in_brackets(unit)}'
    )

  caption = 'Mean of each tenth of the predictions. Dashed: perfect.'
  return figure(draw, 'Calibration of the predicted values', caption)


def training(title: str, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
  """Losses over epochs: name of the run -> [{'epoch', 'train_loss', 'validation_loss'}].

  A loss may be None or missing: such points are left out.
  """

  def draw(axes: Axes) -> None:
    lines = (
      ('train_loss', 'training', (0, (4, 2))),
      ('validation_loss', 'validation', '-'),
    )
    for color, (name, history) in zip(cycle(histories), histories.items(), strict=True):
      for key, label, style in lines:
        points = [(row['epoch'], row[key]) for row in history if row.get(key) is not None]
        if points:
          axes.plot(
            *zip(*points, strict=True),
            color=color,
            linestyle=style,
            linewidth=1.6,
            marker='o',
            markersize=3,
            label=f'{name}, {label}',
          )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel='Epoch', ylabel='Loss')
    if axes.lines and len(histories) <= 5:
      axes.legend(loc='best', fontsize=8)

  return figure(draw, f'Training of {title}', f'{title}. Dashed: training loss.')


def damage(
  curves: Mapping[str, Sequence[Mapping[str, Any] | None]],
  levels: Sequence[str],
  axis: str,
  name: str,
) -> Figure:
  """A metric under growing damage, with its intervals.

  Args:
    curves: name -> estimates, one per level; None if there is none.
    levels: names of the levels, the first one without damage.
    axis: what a level measures.
    name: of the metric.
  """

  def draw(axes: Axes) -> Table:
    for color, (label, estimates) in zip(cycle(curves), curves.items(), strict=True):
      points = [
        (place, each)
        for place, each in enumerate(estimates)
        if each and each['value'] is not None
      ]
      x = [place for place, _ in points]
      y = [each['value'] for _, each in points]
      axes.plot(x, y, color=color, marker='o', markersize=4, label=label)
      bounded = [(place, each) for place, each in points if each['low'] is not None]
      axes.fill_between(
        [place for place, _ in bounded],
        [each['low'] for _, each in bounded],
        [each['high'] for _, each in bounded],
        color=color,
        alpha=0.15 / len(curves),
        linewidth=0,
      )
    axes.set_xticks(range(len(levels)), levels)
    axes.set(xlim=(-0.3, len(levels) - 0.7), xlabel=axis, ylabel=name)
    if len(curves) > 1:
      axes.legend(loc='best')
    rows = [
      (label, level, *(written(each[key]) for key in ('value', 'low', 'high')))
      for label, estimates in curves.items()
      for level, each in zip(levels, estimates, strict=True)
      if each
    ]
    return Table(('series', axis, name, 'low', 'high'), rows)

  names = ', '.join(curves)
  return figure(draw, f'{name} with damaged input: {names}', f'{names}.')


def interval_bar(
  value: float | None,
  low: float | None,
  high: float | None,
  limits: tuple[float, float],
  reference: float | None,
) -> Markup:
  """A row of a forest plot as a table cell: point, interval and reference line.

  Args:
    value: the point; None draws the reference only.
    low: lower end of the interval, None if there is none.
    high: upper end.
    limits: values at the left and the right end of the cell.
    reference: the metric on all samples.
  """
  span = (limits[1] - limits[0]) or 1.0
  place = lambda v: 4 + 152 * min(1.0, max(0.0, (v - limits[0]) / span))
  parts = []
  if reference is not None:
    x = place(reference)
    parts.append(
      f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="20" stroke="#9aa5b1" '
      'stroke-dasharray="3 2"/>'
    )
  if low is not None and high is not None:
    parts.append(
      f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="10" y2="10" '
      f'stroke="{COLORS[0]}" stroke-width="2"/>'
    )
  if value is not None:
    parts.append(f'<circle cx="{place(value):.1f}" cy="10" r="4" fill="{COLORS[0]}"/>')
  return Markup(
    '<svg class="bar" viewBox="0 0 160 20" width="160" height="20" '
    f'aria-hidden="true">{"".join(parts)}</svg>'
  )


def _unit_square(axes: Axes, x: str, y: str) -> None:
  axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  if len(x) <= _MOST_POINTS:
    return x, y
  # Equal steps along the curve, not along the samples: steep parts keep their shape.
  length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
  wanted = np.linspace(0, length[-1], _MOST_POINTS)
  keep = np.unique(np.minimum(np.searchsorted(length, wanted), len(x) - 1))
  return x[keep], y[keep]
