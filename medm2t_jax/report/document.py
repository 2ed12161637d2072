"""An HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import html
import string
from collections.abc import Sequence

from medm2t_jax.report.blocks import Section, to_html

_DOCUMENT = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title, $subtitle</title>
<style>$style</style>
</head>
<body>
<header>
<p class="kicker">$kicker</p>
<h1>$title <span>$subtitle</span></h1>
$summary
<nav aria-label="Sections">$links</nav>
</header>
<main>$sections</main>
$footer
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


def document(
  *,
  kicker: str,
  title: str,
  subtitle: str,
  sections: Sequence[Section],
  summary: str = '',
  footer: str = '',
) -> str:
  """A whole file as HTML.

  Args:
    kicker: what kind of page it is.
    title: its heading.
    subtitle: beside it.
    sections: of the page.
    summary: HTML above the first section.
    footer: below the last one.
  """
  return _DOCUMENT.substitute(
    kicker=html.escape(kicker),
    title=html.escape(title),
    subtitle=html.escape(subtitle),
    style=STYLE,
    summary=summary,
    links=''.join(f'<a href="#{each.name}">{each.title}</a>' for each in sections),
    sections=''.join(map(_section, sections)),
    footer=f'<footer>{html.escape(footer)}</footer>' if footer else '',
  )


def _section(section: Section) -> str:
  inner = ''.join(map(to_html, section.blocks))
  title = html.escape(section.title)
  return f'<section id="{section.name}"><h2>{title}</h2>{inner}</section>'
