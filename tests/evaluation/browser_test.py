"""The report in a real browser: on a phone, offline, and on paper."""

from __future__ import annotations

import html
import json
import re

import pytest

from medm2t_jax.evaluation.reporting import write_report
from tests.support.chromium import CHROMIUM, chromium

pytestmark = pytest.mark.skipif(
  CHROMIUM is None, reason='no chromium: install the package of that name'
)

# A frame is laid out at its own width, where a window has a least one.
_PROBE = """<!doctype html><title>probe</title>
<iframe id="page" width="{width}" height="800" style="border: 0" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
onload = () => {{
  const page = document.getElementById('page').contentDocument;
  page.querySelectorAll('details').forEach((each) => {{ each.open = true; }});
  const images = [...page.images];
  document.getElementById('found').textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    images: images.length,
    broken: images.filter((each) => !each.naturalWidth).map((each) => each.alt),
    wide: images.filter((each) => each.getBoundingClientRect().width > {width}).length,
    fetched: page.defaultView.performance.getEntriesByType('resource')
      .map((each) => each.name).filter((name) => !name.startsWith('data:')),
    text: page.body.innerText.length,
  }});
}};
</script>
"""


@pytest.fixture(scope='module', params=['cvd', 'los'])
def report(request, tmp_path_factory, predictions, context):
  folder = tmp_path_factory.mktemp(request.param)
  table = predictions(request.param, 240)
  write_report(folder, table, *context(request.param, 240), resamples=30)
  return folder / 'report.html'


@pytest.mark.parametrize('width', [360, 1200])
def test_it_fits_the_screen_and_loads_nothing(report, tmp_path, width):
  probe = tmp_path / 'probe.html'
  page = html.escape(report.read_text())
  probe.write_text(_PROBE.format(width=width, page=page))
  shown = chromium(tmp_path, '--dump-dom', probe.as_uri())
  found = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
  assert found and found[1], 'the probe did not run'
  result = json.loads(html.unescape(found[1]))
  assert result['width'] <= width, 'it scrolls sideways'
  assert result['images'] >= 5 and not result['broken'] and not result['wide']
  assert not result['fetched']
  assert result['text'] > 5000


def test_it_prints(report, tmp_path):
  file = tmp_path / 'report.pdf'
  chromium(tmp_path, f'--print-to-pdf={file}', '--no-pdf-header-footer', report.as_uri())
  content = file.read_bytes()
  assert content.startswith(b'%PDF')
  assert 3 <= len(re.findall(rb'/Type\s*/Page\b', content)) < 40
