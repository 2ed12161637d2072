"""Pictures of attributions: bars, courses over time, an ECG on paper, attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from data_pipeline.format.time_units import unit_of
from medm2t_jax.evaluation.explain.explanation import Attention
from medm2t_jax.modalities.shown import Recording
from medm2t_jax.report.blocks import Figure, Table
from medm2t_jax.report.pictures import COLORS, columns_table, figure, written
from medm2t_jax.report.text import in_brackets, shortened

RAISES, LOWERS = COLORS[1], COLORS[0]
_LONGEST_NAME = 42
_LEAD_SPACING = 2.0  # mV between the lines of two leads
_SHADE_SECONDS = 0.2  # length of a shaded piece of the ECG: one large square


def bars(
  names: Sequence[str], values: Sequence[float], signs: Sequence[float | None], axis: str
) -> Figure:
  """Horizontal bars, the first on top.

  Args:
    names: one per bar.
    values: their lengths.
    signs: the colour of each bar: above 0, below 0, or None.
    axis: label of the axis.
  """

  def draw(axes: Axes) -> Table:
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, color=[_color(sign) for sign in signs], height=0.7)
    axes.set_yticks(places, [shortened(name, _LONGEST_NAME) for name in names])
    axes.axvline(0, color='#9aa5b1', linewidth=1)
    axes.grid(visible=False, axis='y')
    axes.set_xlabel(axis, loc='right')  # a long one has the room below the names
    return Table(
      ('', axis), [(name, written(each)) for name, each in zip(names, values, strict=True)]
    )

  height = 0.9 + 0.26 * len(names)
  title = f'{axis}: {", ".join(names)}'
  return figure(draw, title, inches=(7.2, height), width='page')


def course(
  name: str, unit: str, hours: np.ndarray, values: np.ndarray, attributions: np.ndarray
) -> Figure:
  """Values (n) over time, each point coloured and sized by its attribution."""
  time = unit_of(-float(hours.min()))
  when = hours / time.hours
  title = f'{time.name.capitalize()} relative to the prediction'

  def draw(axes: Axes) -> Table:
    axes.plot(when, values, color='#c3ccd5', linewidth=1, zorder=1)
    largest = float(np.abs(attributions).max()) or 1.0
    sizes = 8 + 70 * np.abs(attributions) / largest
    colors = [_color(each) for each in attributions]
    axes.scatter(when, values, s=sizes, c=colors, zorder=2, linewidths=0)
    axes.set(xlabel=title, ylabel=unit or 'Value', title=name)
    begin = min(float(hours.min()), -1.0) / time.hours
    axes.set_xlim(1.04 * begin, -0.02 * begin)
    header = (title, f'{name}{in_brackets(unit)}', 'Attribution')
    return columns_table(header, when, values, attributions)

  return figure(draw, f'{name} over time', inches=(4.6, 2.8))


def strip(recording: Recording) -> Figure:
  """A recording at 25 mm/s and 10 mm/mV, its leads shaded by their attributions."""
  seconds = len(recording.signal) / recording.rate
  leads = len(recording.leads)
  top = _LEAD_SPACING * leads

  def draw(axes: Axes) -> Table:
    axes.xaxis.set_minor_locator(MultipleLocator(0.04))
    axes.yaxis.set_minor_locator(MultipleLocator(0.1))
    axes.xaxis.set_major_locator(MultipleLocator(0.2))
    axes.yaxis.set_major_locator(MultipleLocator(0.5))
    axes.grid(which='minor', color='#fbe9e9', linewidth=0.3)
    axes.grid(which='major', color='#f3c6c6', linewidth=0.5)
    axes.tick_params(which='both', length=0, labelleft=False, labelbottom=False)
    _shade(axes, recording, top)
    time = np.arange(len(recording.signal)) / recording.rate
    for place, lead in enumerate(recording.leads):
      line = top - _LEAD_SPACING * (place + 0.5)
      axes.plot(time, recording.signal[:, place] + line, color='#1f2933', linewidth=0.7)
      axes.text(0.02, line + 0.55, lead, fontsize=8, fontweight='bold')
    axes.set(xlim=(0, seconds), ylim=(0, top))
    axes.set_aspect(0.4)  # 10 mm/mV against 25 mm/s
    return _strip_numbers(recording, time)

  millimetre = 1 / 25.4
  size = (25 * seconds * millimetre + 0.3, 10 * top * millimetre + 0.3)
  return figure(
    draw,
    'Most recent ECG, twelve leads',
    '25 mm/s, 10 mm/mV, band-passed 0.5 to 40 Hz. Orange pieces raise the output, blue '
    'pieces lower it; a deeper colour means a larger effect.',
    inches=size,
    width='page',
  )


def _strip_numbers(recording: Recording, time: np.ndarray) -> Table:
  """Signals at every time; attributions of a piece where it begins."""
  of_piece, length = _pieces(recording)
  rows = []
  for place, (second, signal) in enumerate(zip(time, recording.signal, strict=True)):
    piece, inside = divmod(place, length)
    shades = [''] * len(signal) if inside else map(written, of_piece[piece])
    rows.append((written(second), *map(written, signal), *shades))
  shaded = f'attribution of the next {_SHADE_SECONDS:g} s'
  header = ['Seconds', *(f'{lead} (mV)' for lead in recording.leads)]
  return Table([*header, *(f'{lead}, {shaded}' for lead in recording.leads)], rows)


def _pieces(recording: Recording) -> tuple[np.ndarray, int]:
  """Attributions of the pieces that are shaded (p l), and how many samples one has."""
  length = round(_SHADE_SECONDS * recording.rate)
  starts = np.arange(0, len(recording.attributions), length)
  return np.add.reduceat(recording.attributions, starts, axis=0), length


def _shade(axes: Axes, recording: Recording, top: float) -> None:
  pieces, _ = _pieces(recording)
  largest = float(np.abs(pieces).max())
  for piece, lead in np.argwhere(np.abs(pieces) > 0.1 * largest):
    value = float(pieces[piece, lead])
    axes.add_patch(
      Rectangle(
        (piece * _SHADE_SECONDS, top - _LEAD_SPACING * (lead + 1)),
        _SHADE_SECONDS,
        _LEAD_SPACING,
        color=_color(value),
        alpha=0.45 * abs(value) / largest,
        linewidth=0,
      )
    )


def attention(of: str, looks: Sequence[Attention]) -> Figure:
  """Attention weights on the tokens of one part, one line per querying part."""
  tokens = looks[0].tokens

  def draw(axes: Axes) -> Table:
    weights = np.stack([look.weights for look in looks])
    drawn = axes.pcolormesh(weights, cmap='Blues', vmin=0, vmax=max(weights.max(), 1e-9))
    axes.set_yticks(np.arange(len(looks)) + 0.5, [f'by {look.by}' for look in looks])
    every = max(1, len(tokens) // 12)
    shown = range(0, len(tokens), every)
    axes.set_xticks(
      [place + 0.5 for place in shown], [tokens[place] for place in shown],
      rotation=40, ha='right', fontsize=8,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.figure.colorbar(drawn, ax=axes, label='Weight')
    rows = [(f'by {look.by}', *map(written, look.weights.tolist())) for look in looks]
    return Table(('', *tokens), rows)

  return figure(
    draw,
    f'Attention weights on {of}',
    f'{of}: attention weights on its parts, mean over the heads; each line sums to 1.',
    inches=(9.2, 1.9 + 0.3 * len(looks)),
    width='page',
  )


def _color(sign: float | None) -> str:
  if sign is None or sign == 0:
    return '#8a949e'
  return RAISES if sign > 0 else LOWERS
