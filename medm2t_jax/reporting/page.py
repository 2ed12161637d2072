"""The page: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import html
import string
from collections.abc import Mapping, Sequence
from typing import Any

from medm2t_jax.reporting.blocks import Bullets, Callout, Section, to_html
from medm2t_jax.reporting.evaluation import Evaluation
from medm2t_jax.reporting.sections import SECTIONS
from medm2t_jax.reporting.text import count, interval, number, source_name, task_name

_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<p class="kicker">$kicker</p>
<h1>$task <span>$source</span></h1>
$notes
<div class="headline">
<div class="main"><p class="label">$name</p><p class="value">$value</p>
<p class="interval">$interval</p></div>
<dl>$facts</dl>
</div>
<nav aria-label="Sections">$links</nav>
</header>
<main>$sections</main>
<footer>$footer</footer>
</body>
</html>
""")

STYLE = """
:root{--ink:#1f2933;--soft:#52606d;--line:#d9e0e7;--tint:#f4f7fa;--blue:#0b5394}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:68rem;padding:1.5rem 1.5rem 3rem;background:#fff;
 color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,
 'Helvetica Neue',Arial,sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 1rem}
h1 span{color:var(--soft);font-weight:400;white-space:nowrap}
h2{font-size:1.35rem;margin:2.75rem 0 .75rem;padding-top:.9rem;
 border-top:2px solid var(--blue)}
h3{font-size:1.05rem;margin:1.75rem 0 .5rem}
p,ul{margin:.5rem 0;max-width:46rem}
.kicker{margin:0;color:var(--blue);font-weight:600;font-size:.9rem}
.warning{background:#fff6e0;border-left:4px solid #c77700;padding:.55rem .8rem;
 max-width:none;overflow-wrap:anywhere}
.warning ul{margin:0;padding-left:1.1rem;max-width:none}
.headline{display:flex;flex-wrap:wrap;gap:1.25rem 2.5rem;margin:1.25rem 0;
 padding:1.1rem 1.4rem;background:var(--tint);border:1px solid var(--line);
 border-radius:8px}
.main{flex:0 1 17rem}
.main p{margin:0}
.main .label,.main .interval{color:var(--soft)}
.main .value{font-size:2.9rem;line-height:1.15;font-weight:700;color:var(--blue);
 font-variant-numeric:tabular-nums}
dl{flex:1 1 22rem;display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.1rem;
 margin:0;align-content:center}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;font-size:.95rem}
a{color:var(--blue)}
.scroll{overflow-x:auto;margin:.9rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{caption-side:top;text-align:left;color:var(--soft);padding-bottom:.35rem}
th,td{padding:.3rem 1.3rem .3rem 0;text-align:left;vertical-align:top;
 border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
thead th{vertical-align:bottom;border-bottom:1.5px solid var(--soft);font-weight:600}
td:first-child{min-width:8rem;max-width:22rem;overflow-wrap:anywhere}
td{max-width:26rem}
.number{text-align:right;white-space:nowrap}
th.number{white-space:normal}
th.group{padding-top:.85rem;font-weight:600;color:var(--blue);overflow-wrap:anywhere}
svg.bar{display:block;margin:.1rem 0}
.gallery{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
 gap:1rem 1.5rem;margin:1rem 0;max-width:68rem}
figure{margin:0;max-width:31rem;break-inside:avoid}
figure.wide{max-width:none}
img{display:block;width:100%;height:auto}
figcaption{color:var(--soft);font-size:.88rem}
details{margin:1rem 0}
summary{cursor:pointer;font-weight:600;color:var(--blue)}
footer{margin-top:3rem;color:var(--soft);font-size:.88rem}
@media(max-width:40rem){
 body{padding:1rem 1rem 2rem}
 h1{font-size:1.5rem}
 .headline{padding:.9rem 1rem}
 .main .value{font-size:2.4rem}
 dl{flex-basis:100%}
 table{font-size:.85rem}
}
@media print{
 body{max-width:none;padding:0;font-size:11px}
 nav{display:none}
 h2,h3,caption{break-after:avoid}
 tr{break-inside:avoid}
 .scroll{overflow:visible}
 details::details-content{content-visibility:visible;height:auto}
}
"""


def render(evaluation: Evaluation) -> str:
  """The whole page as HTML."""
  metrics = evaluation.metrics
  sections = [section for make in SECTIONS if (section := make(evaluation)) is not None]
  headline = metrics['headline']
  bootstrap = metrics['bootstrap']
  footer = (
    f'Intervals: central 95 % of {bootstrap["resamples"]:,} bootstrap resamples of '
    'subjects (calibration slope and intercept: Wald, robust to samples of one '
    'subject). Discrimination is that of the probabilities as predicted. Every figure '
    'is in metrics.json, every prediction in predictions.parquet.'
  )
  return page(
    kicker='MedM2T evaluation',
    task=metrics['task'],
    source=metrics['source'],
    notes=metrics['notes'],
    headline=_headline(headline, metrics['target']['kind']),
    facts=_facts(metrics),
    sections=sections,
    footer=footer,
  )


def page(
  *,
  kicker: str,
  task: str,
  source: str,
  notes: Sequence[str],
  headline: tuple[str, str, str],
  facts: Sequence[tuple[str, str]],
  sections: Sequence[Section],
  footer: str,
) -> str:
  """A whole page as HTML.

  Args:
    kicker: what kind of page it is.
    task: key of the task.
    source: key of the source.
    notes: warnings on top.
    headline: name, value and interval of the figure that stands for the page.
    facts: terms and texts beside it.
    sections: of the page.
    footer: below them.
  """
  task, source = task_name(task), source_name(source)
  name, value, spread = headline
  return _PAGE.substitute(
    kicker=html.escape(kicker),
    title=html.escape(f'{task}, {source}'),
    style=STYLE,
    task=html.escape(task),
    source=html.escape(source),
    notes=_notes(notes),
    name=html.escape(name),
    value=html.escape(value),
    interval=html.escape(spread),
    facts=''.join(
      f'<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>' for term, text in facts
    ),
    links=''.join(f'<a href="#{each.name}">{each.title}</a>' for each in sections),
    sections=''.join(map(section_html, sections)),
    footer=html.escape(footer),
  )


def _notes(notes: Sequence[str]) -> str:
  if len(notes) < 2:
    return ''.join(to_html(Callout(note)) for note in notes)
  return f'<div class="warning">{to_html(Bullets(notes))}</div>'


def section_html(section: Section) -> str:
  """A section with its anchor."""
  inner = ''.join(map(to_html, section.blocks))
  title = html.escape(section.title)
  return f'<section id="{section.name}"><h2>{title}</h2>{inner}</section>'


def _headline(headline: Mapping[str, Any], kind: str) -> tuple[str, str, str]:
  """Name, value and interval of the headline figure in words."""
  name, average = headline['name'], headline['average']
  if average:
    name = f'{name}, macro average' if average == 'macro' else f'{name}, {average}'
  if headline['value'] is None:
    return f'Test {name}', 'undefined', headline['reason']
  unit = ' days' if kind == 'days' else ''
  digits = 2 if kind == 'days' else 3
  spread = interval(headline, digits)
  if headline['low'] is not None:
    spread = f'95 % interval {spread}'
  return f'Test {name}', number(headline['value'], digits) + unit, spread


def _facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
  test = metrics['test']
  facts = [
    ('Test samples', f'{count(test["n"])} of {count(test["subjects"])} subjects'),
  ]
  if metrics['target']['kind'] == 'classes':
    listed = [f'{name} {count(n)}' for name, n in test['classes'].items()]
    facts += [('Classes', ', '.join(listed)), ('Calibration', _calibrated(metrics))]
  else:
    slope = metrics['calibration']['slope']['value']
    facts.append(('Calibration', f'slope {number(slope, 2)} (ideal 1)'))
  return [
    *facts,
    ('Modalities', ', '.join(metrics['modalities'])),
    ('Folds tested', ', '.join(metrics['folds'])),
    ('Data version', metrics['dataset_version'] or 'not recorded'),
  ]


def _calibrated(metrics: Mapping[str, Any]) -> str:
  figures = metrics['calibration']
  before = _worst_error(figures['before'])
  if figures['after'] is None:
    return f'not calibrated, ECE {before}'
  return f'temperature-scaled, ECE {before} before, {_worst_error(figures["after"])} after'


def _worst_error(figures: Mapping[str, Any]) -> str:
  return number(max(each['ece']['value'] for each in figures['classes'].values()))
