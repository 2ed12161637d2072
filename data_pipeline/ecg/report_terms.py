"""Maps machine-report lines of an ECG to the 143 SNOMED CT terms of the text view.

The mapping used in the paper was not published; `tables/report_rules.csv` holds ours
(phrase, negation, qualifier -> terms) and `tables/terms.csv` the terms, which are published
with their counts (`ECG_Notes.csv`).
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent / 'tables'
# Directly before a phrase, with at most one word in between ("no acute ischemia").
_NEGATED = re.compile(
  r'\b(?:no|not|without|absence of|negative for)(?: evidence of)?(?: \w+)? $'
)


@dataclasses.dataclass(frozen=True)
class _Rule:
  phrase: re.Pattern[str]
  qualifier: re.Pattern[str] | None
  negation: re.Pattern[str] | None
  terms: tuple[int, ...]


@functools.cache
def terms() -> tuple[str, ...]:
  """The 143 terms, in the order of `terms_of`'s indices."""
  return tuple(row['term'] for row in _rows('terms'))


def terms_of(lines: Sequence[str]) -> tuple[list[int], list[str]]:
  """The terms that report lines contain.

  Args:
    lines: report lines of one ECG.

  Returns:
    Sorted, unique indices into `terms()`; and the lines that no rule matches.
  """
  found: set[int] = set()
  unmatched = []
  for line in lines:
    indices = _terms_of_line(line)
    if indices is None:
      unmatched.append(line)
    else:
      found.update(indices)
  return sorted(found), unmatched


@functools.lru_cache(maxsize=100_000)
def _terms_of_line(line: str) -> tuple[int, ...] | None:
  """Indices of the terms in one line; None if no rule matches it."""
  text = _normalise(line)
  if not text:
    return ()
  matched, indices = False, set()
  for rule in _rules():
    places = [match.start() for match in rule.phrase.finditer(text)]
    if not places:
      continue
    if rule.qualifier is not None and not rule.qualifier.search(text):
      continue
    if rule.negation is not None and rule.negation.search(text):
      continue
    matched = True
    if not all(_NEGATED.search(text[:place]) for place in places):
      indices.update(rule.terms)
  return tuple(sorted(indices)) if matched else None


@functools.cache
def _rules() -> tuple[_Rule, ...]:
  index = {term: position for position, term in enumerate(terms())}
  return tuple(
    _Rule(
      phrase=re.compile(_any_of(row['phrase'])),
      qualifier=re.compile(_any_of(row['qualifier'])) if row['qualifier'] else None,
      negation=re.compile(_any_of(row['negation'])) if row['negation'] else None,
      terms=tuple(index[term] for term in row['terms'].split('|') if term),
    )
    for row in _rows('report_rules')
  )


def _any_of(phrases: str) -> str:
  patterns = (
    r'\b.*?\b'.join(re.escape(_normalise(part)) for part in phrase.split('...'))
    for phrase in phrases.split('|')
  )
  return rf'\b(?:{"|".join(patterns)})\b'


def _normalise(text: str) -> str:
  return ' '.join(re.sub(r'[^a-z0-9 ]', ' ', text.lower().replace("'", '')).split())


def _rows(name: str) -> list[dict[str, str]]:
  with (_FOLDER / f'{name}.csv').open(encoding='utf-8', newline='') as file:
    return list(csv.DictReader(line for line in file if not line.startswith('#')))
