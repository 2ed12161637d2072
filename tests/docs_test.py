"""The code on the documentation's pages runs."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / 'docs'


def test_the_code_of_the_model_page_runs_from_top_to_bottom():
  blocks = re.findall(r'```python\n(.*?)```', (DOCS / 'model.md').read_text(), re.DOTALL)
  assert len(blocks) == 8
  exec(compile('\n'.join(blocks), 'docs/model.md', 'exec'), {})
