"""Compares units: all usual spellings of a unit have the same key.

In units of hospitals, case has no meaning ('MG/DL', 'mEq/L'), nor do blanks, degree signs,
and the brackets of UCUM ('mm[Hg]', '[IU]/L'). All signs for micro become 'u', as do the
'mc' of 'mcg' and 'mcL'. Everything else stays in the key: units that are not known to be
equal are different.
"""

from __future__ import annotations

import re

# Replacements by character; characters without a counterpart are removed.
_SAME = str.maketrans(
  'µμ−–×·／％²³ℓ',
  'uu--**/%23l',
  ' \t\n\r\f\v\u00a0\u2009\u202f°º˚[](){}',
)
_MICRO = r'(^|[^a-z])mc(g|l|m|mol|eq|iu|u|kat|v|s|ci)($|[^a-z])'
_NONE = ('', 'na', 'n/a', 'none')


def unit_key(unit: str) -> str:
  """The key of a unit; '' if there is no unit.

  Equal to the SQL expression of `key_sql`.
  """
  key = unit.lower().replace('℃', 'c').replace('℉', 'f').translate(_SAME)
  key = re.sub(_MICRO, r'\1u\2\3', key)
  return '' if key in _NONE else key


def key_sql(expression: str) -> str:
  """DuckDB SQL for the key of a text; null if there is none."""
  chars = [(old, chr(new)) for old, new in _pairs()]
  replaced = f"replace(replace(lower({expression}), '℃', 'c'), '℉', 'f')"
  olds, news = (''.join(each) for each in zip(*chars, strict=True))
  # Characters without a counterpart are removed.
  left_out = ''.join(chr(code) for code, new in _SAME.items() if new is None)
  translated = f"translate({replaced}, '{olds}{left_out}', '{news}')"
  key = f"regexp_replace({translated}, '{_MICRO}', '\\1u\\2\\3', 'g')"
  none = ', '.join(f"'{name}'" for name in _NONE)
  return f'CASE WHEN {key} IN ({none}) THEN NULL ELSE {key} END'


def _pairs() -> list[tuple[str, int]]:
  return [(chr(code), new) for code, new in _SAME.items() if isinstance(new, int)]
