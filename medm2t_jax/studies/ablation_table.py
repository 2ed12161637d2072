"""Ablations against the full model: paired differences, table and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.format.atomic import write_text
from data_pipeline.format.schema import write_json
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES, Draws, estimate
from medm2t_jax.evaluation.metrics.metrics import (
  NAMES,
  compared_metrics,
  digits_of,
  metric_draws,
  why_undefined,
)
from medm2t_jax.evaluation.page import page
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.report.blocks import (
  Block,
  Bullets,
  Cell,
  Gallery,
  Paragraph,
  Section,
  Table,
  to_markdown,
)
from medm2t_jax.report.text import NONE, in_brackets, in_words, number, task_name
from medm2t_jax.studies import ablation_plots


class Ablations:
  """The full model and the ablations so far, on the same test rows and resamples.

  With several seeds of training every metric is the mean over them.

  Attributes:
    names: of the ablations so far.
  """

  def __init__(self, rows: Rows, full: Sequence[np.ndarray], resamples: int = RESAMPLES):
    """Computes the metrics of the full model.

    Args:
      rows: test rows.
      full: predictions of the full model, one array per seed.
      resamples: number of bootstrap resamples.

    Raises:
      DataError: the predictions do not fit the rows.
    """
    self._rows, self._resamples = rows, resamples
    self._names = compared_metrics(rows)
    self._counts, self._reason = rows.counts(), why_undefined(rows)
    self._target = rows.target
    self._digits = digits_of(rows.target)
    self._full = self._draws(full, 'the full model')
    self._entries: list[dict[str, Any]] = []

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the ablations added so far."""
    return tuple(each['name'] for each in self._entries)

  def add(self, described: Mapping[str, Any], predictions: Sequence[np.ndarray]) -> None:
    """Adds an ablation.

    Args:
      described: its name, group and question, and further content for `ablations.json`.
      predictions: of the test rows, one array per seed, in the order of the full model's.

    Raises:
      DataError: the predictions do not fit the rows.
    """
    theirs = self._draws(predictions, f'ablation {described["name"]}')
    metrics, differences, by_seed = {}, {}, {}
    for name in self._names:
      paired = [a - b for a, b in zip(theirs[name], self._full[name], strict=True)]
      metrics[name] = self._estimate(theirs[name])
      differences[name] = self._estimate(paired)
      by_seed[name] = [each.value for each in paired]
    self._entries.append(
      {**described, 'metrics': metrics, 'differences': differences, 'by_seed': by_seed}
    )

  def verdict(self) -> str:
    """A sentence on the last added ablation."""
    return self._verdict(self._entries[-1])

  def write(self, directory: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `ablations.html`, `ablations.md` and `ablations.json`, each atomically.

    Args:
      directory: exists.
      about: 'task', 'source', 'data_version', 'folds', 'seeds', 'left_out' (name ->
        reason), 'to_run' (names), for `ablations.json` and the page.

    Returns:
      The content of `ablations.json`.
    """
    result = {
      **about,
      **self._counts,
      'resamples': self._resamples,
      'full': {name: self._estimate(self._full[name]) for name in self._names},
      'ablations': self._entries,
    }
    sections = self._sections(result)
    write_text(directory / 'ablations.html', self._page(result, sections))
    write_text(
      directory / 'ablations.md',
      _markdown(
        task_name(result['task'], self._target.description), self._notes(result), sections
      ),
    )
    # Written last: if it exists, the other files are of the same ablations.
    write_json(directory / 'ablations.json', result)
    return result

  def _draws(self, predictions: Sequence[np.ndarray], what: str) -> dict[str, list[Draws]]:
    """Metric -> draws of every seed."""
    result: dict[str, list[Draws]] = {name: [] for name in self._names}
    for prediction in predictions:
      rows = self._rows.with_prediction(prediction, what)
      for name, draws in metric_draws(rows, self._names, self._resamples).items():
        result[name].append(draws)
    return result

  def _estimate(self, draws: Sequence[Draws]) -> dict[str, Any]:
    """Estimate of the mean over seeds."""
    value = float(np.mean([each.value for each in draws]))
    resampled = np.mean([each.resampled for each in draws], axis=0)
    return estimate(Draws(value, resampled), self._counts, self._reason)

  def _verdict(self, entry: Mapping[str, Any]) -> str:
    name = self._names[0]
    difference = entry['differences'][name]
    low, high = difference['low'], difference['high']
    if low is None:
      return f'no comparison possible ({difference["reason"]})'
    change = f'{NAMES[name]} changes by {in_words(difference, self._digits)}'
    if low <= 0 <= high:
      return f'no difference shown, {change}'
    return f'{"better" if (low > 0) != self._target.numeric else "worse"}, {change}'

  def _grouped(self) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in self._entries:
      groups.setdefault(entry['group'], []).append(entry)
    return groups

  def _sections(self, result: Mapping[str, Any]) -> list[Section]:
    headline, unit = self._names[0], in_brackets(self._target.unit)
    groups = self._grouped()
    blocks: list[Block] = []
    if self._entries:
      picture = ablation_plots.differences(
        {
          group: {each['name']: each['differences'][headline] for each in entries}
          for group, entries in groups.items()
        },
        NAMES[headline] + unit,
        'left' if self._target.numeric else 'right',
      )
      blocks = [Gallery([picture]), self._table(result, groups, unit)]
    blocks.append(
      Paragraph(
        'Differences are ablation minus full model, on the same test samples and the same '
        'resamples of their subjects. The intervals show the variation between test '
        'subjects, not between trainings, which several seeds show. They are not '
        'corrected for the number of ablations.'
      )
    )
    sections = [Section('differences', 'Differences to the full model', blocks)]
    if self._entries:
      rows = [
        (
          each['name'],
          each['question'],
          ', '.join(f'{path}={value}' for path, value in each['changes'].items()),
          ', '.join(each['trained']),
        )
        for each in self._entries
      ]
      header = ('', 'Question', 'Changed options', 'Stages trained for it')
      sections.append(
        Section('questions', 'Definition of each ablation', [Table(header, rows)])
      )
    missing = [f'{name}: {reason}.' for name, reason in result['left_out'].items()]
    missing += [f'{name}: not run yet.' for name in result['to_run']]
    if missing:
      sections.append(Section('left_out', 'Not in the table', [Bullets(missing)]))
    return sections

  def _table(
    self, result: Mapping[str, Any], groups: Mapping[str, Sequence[Any]], unit: str
  ) -> Table:
    several = len(result['seeds']) > 1
    header = ['']
    for name in self._names:
      header += [NAMES[name] + unit, 'Difference, paired']
    header += ['Differences of single seeds'] if several else []
    words = lambda each: in_words(each, self._digits)
    cells: list[Cell] = ['Full model']
    for name in self._names:
      cells += [words(result['full'][name]), NONE]
    rows: list[Sequence[Cell]] = [[*cells, NONE] if several else cells]
    for group, entries in groups.items():
      rows.append([group])
      for each in entries:
        cells = [each['name']]
        for name in self._names:
          cells.append(number(each['metrics'][name]['value'], self._digits))
          cells.append(words(each['differences'][name]))
        if several:
          values = each['by_seed'][self._names[0]]
          cells.append(', '.join(number(value, self._digits) for value in values))
        rows.append(cells)
    return Table(header, rows)

  def _page(self, result: Mapping[str, Any], sections: Sequence[Section]) -> str:
    headline = self._names[0]
    seeds = ', '.join(map(str, result['seeds']))
    return page(
      kicker='MedM2T ablations',
      title=task_name(result['task'], self._target.description),
      source=result['source'],
      notes=self._notes(result),
      headline=f'Full model, test {NAMES[headline]}',
      estimate=result['full'][headline],
      target=self._target,
      facts=[
        ('Test samples', f'{result["n"]:,} of {result["subjects"]:,} subjects'),
        ('Folds', ', '.join(map(str, result['folds']))),
        ('Seeds', seeds),
        ('Ablations', f'{len(self._entries)} run, {len(result["to_run"])} to run'),
        ('Data version', result['data_version']),
      ],
      sections=sections,
      footer=(
        f'Intervals: central 95 % of {result["resamples"]:,} bootstrap resamples of '
        'subjects. Every metric is in ablations.json.'
      ),
    )

  def _notes(self, result: Mapping[str, Any]) -> list[str]:
    notes = [
      f'{each["name"]}: {self._verdict(each)}.'
      for each in self._entries
      if self._verdict(each).startswith('better')
    ]
    if result['source'] == 'simulated':
      notes.append('Simulated patients: these metrics say nothing about real ones.')
    return notes


def _markdown(title: str, notes: Sequence[str], sections: Sequence[Section]) -> str:
  parts = [f'# Ablations: {title}\n']
  parts += [to_markdown(Paragraph(note)) for note in notes]
  for section in sections:
    parts += [f'## {section.title}\n', *map(to_markdown, section.blocks)]
  return '\n'.join(parts)
