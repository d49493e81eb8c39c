"""The report as a page: one file with its plots inside, light or dark as the reader has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from markdown_it import MarkdownIt

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #52606d; --paper: #fff; --line: #d5dbe1; --shade: #f4f6f8;
  --good: #0b7a3b; --bad: #c0261c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d7dde3; --soft: #9aa5b1; --paper: #14181d; --line: #343c45; --shade: #1c2229; --good: #4fc47f;
    --bad: #ff7b6e }
}
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .5rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line) }
em { color: var(--soft) }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500 }
tr:hover td { background: var(--shade) }
td.met { color: var(--good); white-space: nowrap }
td.missed { color: var(--bad); white-space: nowrap }
code, pre { font: .9em ui-monospace, monospace; background: var(--shade); border-radius: 4px }
code { padding: .1em .3em; overflow-wrap: anywhere }
pre { padding: .75rem 1rem; overflow-x: auto }
pre code { padding: 0 }
figure { margin: .25rem 0 2rem; overflow-x: auto }
figure svg { display: block; width: 100%; min-width: 36rem; height: auto }
"""


def page(markdown: str, charts: Mapping[str, str]) -> str:
    """`markdown` as HTML, with each of its images that is one of `charts` put in."""
    # What the text holds of others' words, settings above all, stays text: HTML is off.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(
        r'<p><img src="([\w-]+)\.svg"[^>]*></p>',
        lambda image: f'<figure role="img" aria-label="{image[1]}">{charts[image[1]]}</figure>',
        body,
    )
    body = body.replace("<td>✓", '<td class="met">✓').replace("<td>✗", '<td class="missed">✗')
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Validation of trio-ws</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
