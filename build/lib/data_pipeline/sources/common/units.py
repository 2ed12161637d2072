"""How units are compared: every usual spelling of a unit has the same key.

Case carries no meaning in the units of hospitals ('MG/DL', 'mEq/L'); nor do blanks, the
signs of degrees, and the brackets of UCUM ('mm[Hg]', '[IU]/L'). All signs for micro are
'u', as are the 'mc' of 'mcg' and 'mcL'. Whatever else a unit has stays in its key: what is
not known to be the same is different.
"""

from __future__ import annotations

import re

# Character by character; those that have none after them are left out.
_SAME = str.maketrans(
  'µμ−–×·／％²³ℓ',
  'uu--**/%23l',
  ' \t\n\r\f\v\u00a0\u2009\u202f°º˚[](){}',
)
_MICRO = r'(^|[^a-z])mc(g|l|m|mol|eq|iu|u|kat|v|s|ci)($|[^a-z])'
_NONE = ('', 'na', 'n/a', 'none')


def unit_key(unit: str) -> str:
  """The key of a unit; '' of none.

  The same expression as `key_sql`.
  """
  key = unit.lower().replace('℃', 'c').replace('℉', 'f').translate(_SAME)
  key = re.sub(_MICRO, r'\1u\2\3', key)
  return '' if key in _NONE else key


def key_sql(expression: str) -> str:
  """SQL of DuckDB for the key of a text; null of none."""
  chars = [(old, chr(new)) for old, new in _pairs()]
  replaced = f"replace(replace(lower({expression}), '℃', 'c'), '℉', 'f')"
  olds, news = (''.join(each) for each in zip(*chars, strict=True))
  # What has no counterpart is left out.
  left_out = ''.join(chr(code) for code, new in _SAME.items() if new is None)
  translated = f"translate({replaced}, '{olds}{left_out}', '{news}')"
  key = f"regexp_replace({translated}, '{_MICRO}', '\\1u\\2\\3', 'g')"
  none = ', '.join(f"'{name}'" for name in _NONE)
  return f'CASE WHEN {key} IN ({none}) THEN NULL ELSE {key} END'


def _pairs() -> list[tuple[str, int]]:
  return [(chr(code), new) for code, new in _SAME.items() if isinstance(new, int)]
